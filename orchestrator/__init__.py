"""The orchestrator of sweeps: study, cluster, store, tracker and report, the driver over them, and the command line."""

import os

#: Read by Ray and MLflow when they are imported. Tune's own CSV, JSON and TensorBoard files cost a sync per report and
#: hold nothing that the study lacks. Neither library may send usage data or print between the lines of the progress.
_LIBRARY_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    # All processes that fit start at once. None starts for nothing: the study hands out no more trials than fit.
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",
    # Relative paths in a sweep file start at the folder of the launch, in the trials' processes too.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Otherwise Tune restarts the trials of a preempted machine itself; the study decides which trial is next.
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The retry queue repeats a request that failed, after it has looked whether the request has arrived.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
for _name, _value in _LIBRARY_SETTINGS.items():
    os.environ.setdefault(_name, _value)
#: They belong to a run or a server of somebody else, whose shell started this program. MLflow would write elsewhere, or
#: later than it says. `MLFLOW_TRACKING_URI` and the credentials beside it are obeyed.
for _name in (
    "MLFLOW_ACTIVE_MODEL_ID",
    "MLFLOW_ARTIFACTS_ONLY",
    "MLFLOW_ENABLE_ASYNC_LOGGING",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
    "MLFLOW_REGISTRY_STORE_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_RUN_CONTEXT",
    "MLFLOW_RUN_ID",
):
    os.environ.pop(_name, None)
