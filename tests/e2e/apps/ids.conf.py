"""Each line of every log begins with the id of its request."""

logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "hybridworker.RequestIdFilter"}},
    "formatters": {"plain": {"format": "%(levelname)s <%(request_id)s> %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain", "filters": ["request_id"]}},
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {
        name: {"level": "INFO", "handlers": [], "propagate": True} for name in ("gunicorn.access", "gunicorn.error")
    },
}
