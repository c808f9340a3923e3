"""Whose store it is: an object at its root has the id of the one study whose trials are in the store.

Two sweeps of one name and one `store.path` would otherwise take each other's checkpoints for their own. A store that an
earlier release has begun has no such object: it becomes the study's if all its checkpoints are those of its trials.
"""

from __future__ import annotations

import json
from contextlib import suppress

from orchestrator.store.adoption import Trials, first_difference
from orchestrator.store.objects import ConflictError, MissingError, Objects
from trainers.errors import InputError
from trainers.formats import Format

OWNER = "study"
"""The key of the object that names the study."""
FORMAT = Format()


class ForeignStoreError(InputError):
    """The store belongs to another study."""


def is_own(objects: Objects, study: str | None) -> bool:
    """Whether the store says that it belongs to the study with this id; False if it says nothing.

    Raises ForeignStoreError if it belongs to another one, as every other one is if there is no study yet (None).
    """
    found = _owner(objects)
    if found is not None and found != study:
        raise _foreign(objects, "belongs to another sweep")
    return found is not None


def is_unused(objects: Objects) -> bool:
    """Whether the store says nothing and has no trial."""
    return _owner(objects) is None and not objects.find("trials/")


def check_owner(objects: Objects, study: str | None, trials: Trials) -> bool:
    """Whether the store belongs to the study already; False if it can become the study's. Writes nothing.

    Raises ForeignStoreError as `is_own`, and if a store that says nothing has something of a trial that `trials` does
    not know, or knows with another system, configuration or score.
    """
    if is_own(objects, study):
        return True
    if (found := first_difference(objects, trials)) is not None:
        raise _foreign(objects, f"does not say whose it is, and has trials of another sweep ({found})")
    return False


def claim_owner(objects: Objects, study: str, trials: Trials) -> None:
    """Makes the store that of the study, for good. For a driver that holds the lease. Raises as `check_owner`."""
    if check_owner(objects, study, trials):
        return
    # The object decides, whoever wrote it: after a lost answer this put may conflict with itself.
    with suppress(ConflictError):
        objects.put(OWNER, json.dumps(FORMAT.stamped({"id": study})).encode(), if_absent=True)
    if not is_own(objects, study):
        raise MissingError(objects.uri(OWNER))


def _owner(objects: Objects) -> str | None:
    place = objects.uri(OWNER)
    try:
        return str(FORMAT.read(dict(json.loads(objects.get(OWNER)[0])), place)["id"])
    except MissingError:
        return None
    except (ValueError, TypeError, KeyError):
        raise ForeignStoreError(
            f"{place} is damaged, so nobody knows whose store it is; delete that one object, and the next launch "
            "compares the checkpoints beside it with its own trials"
        ) from None


def _foreign(objects: Objects, found: str) -> ForeignStoreError:
    return ForeignStoreError(
        f"the store {objects.uri('')} {found}, which was created elsewhere under the same name or whose folder was "
        "deleted; use another --name or store.path, or delete that store by hand if nothing in it is needed"
    )
