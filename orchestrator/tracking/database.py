"""MLflow's database without a server: many of its client's calls in one transaction, and points in one statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.store.tracking.dbmodels.models import SqlMetric
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import insert
from sqlalchemy.orm import Session


@contextmanager
def one_transaction(client: MlflowClient) -> Iterator[Session | None]:
    """What `client` writes in the block is kept at its end, all of it or nothing; None where it talks to a server.

    MLflow's own calls are seven transactions for each trial, which take twice the time of one for many. The model
    registry writes through a connection of its own, and would wait for the end of the block in vain.
    """
    store = client._tracking_client.store
    if not isinstance(store, SqlAlchemyStore):
        yield None
        return
    separate = store.ManagedSessionMaker
    with (
        separate(read_only=False) as outer,
        Session(outer.connection(), join_transaction_mode="rollback_only", expire_on_commit=False) as session,
    ):

        @contextmanager
        def joined(read_only: bool = True) -> Iterator[Session]:
            yield session
            session.flush()

        store.ManagedSessionMaker = joined
        try:
            yield session
        finally:
            store.ManagedSessionMaker = separate


def add_history(client: MlflowClient, session: Session, run_id: str, points: Sequence[Metric]) -> Sequence[Metric]:
    """Adds all of `points`, in order of their steps, but the last of each key, which are returned.

    MLflow's client is to log those: it knows which point of a key is the latest. Making an object of each point, as it
    does, takes ten times as long.
    """
    last = {point.key: point for point in points}
    rows = []
    for point in points:
        if last[point.key] is not point:
            is_nan, value = client._tracking_client.store.sanitize_metric_value(point.value)
            row = {"key": point.key, "value": value, "is_nan": is_nan, "timestamp": point.timestamp, "step": point.step}
            rows.append({"run_uuid": run_id, **row})
    if rows:
        session.execute(insert(SqlMetric.__table__), rows)
    return list(last.values())
