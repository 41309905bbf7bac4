"""Every line of gunicorn's loggers shows the id of the request, and from which line of code it comes."""

HANDLER = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "filters": ["id"], "formatter": "id"}
LOGGER = {"level": "INFO", "handlers": ["id"], "propagate": False}

access_log_format = "%(r)s %(s)s"
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"id": {"()": "request_id.Filter"}},
    "formatters": {
        "id": {"format": "<%(request_id)s> %(name)s %(levelname)s %(filename)s:%(funcName)s:%(lineno)d %(message)s"}
    },
    "handlers": {"id": HANDLER},
    "root": {"level": "INFO", "handlers": ["id"]},
    "loggers": {"gunicorn.access": LOGGER, "gunicorn.error": LOGGER},
}
