"""Faster writes to MLflow's database without a server: many calls in one transaction, many points in one statement."""

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
    """Commits what `client` writes in the block at its end, or nothing of it if the block raises.

    Yields the session of the transaction, or None if the client talks to a server, which commits each call.

    By itself MLflow needs seven transactions for each trial, which take twice the time of one for many. The model
    registry uses a connection of its own: a call of it in the block would wait for the block's end and never return.
    """
    store = client._tracking_client.store
    if not isinstance(store, SqlAlchemyStore):
        yield None
        return
    own_sessions = store.ManagedSessionMaker
    with (
        own_sessions(read_only=False) as outer,
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
            store.ManagedSessionMaker = own_sessions


def add_history(client: MlflowClient, session: Session, run_id: str, points: Sequence[Metric]) -> Sequence[Metric]:
    """Inserts `points`, which are in order of their steps, except the last one of each key, and returns those.

    The caller logs them through MLflow's client, which updates the latest value of each key. The client makes an object
    of each point, which takes ten times as long as this.
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
