"""Who decides and who keeps: study, cluster, tracker, store, and the command line over them."""

import os

#: Read by Ray and MLflow when they are imported. Tune's own CSV, JSON and TensorBoard files cost a sync per report and
#: hold nothing that the study lacks; neither library is to report to its makers or to talk over the progress.
_LIBRARY_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    # All processes that fit start at once, and none in vain: the study hands out no more trials than fit.
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",
    # Paths in a sweep file are those of the folder it was launched from, in the trials' processes too.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Else Tune restarts the trials of a preempted machine itself, where the study says who goes on.
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # What a server did not answer is tried again by the retry queue, which looks first what has arrived all the same.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
for _name, _value in _LIBRARY_SETTINGS.items():
    os.environ.setdefault(_name, _value)
