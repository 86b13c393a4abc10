"""How Jupyter is started for the course: by `make lab`, and on Binder. The variable JUPYTER_CONFIG_PATH leads here."""

import os

# Kernels inherit this, and torch reads it as it is imported. Otherwise its threads wait in a busy loop, and two
# notebooks at work, or one beside anything else, take the processor from each other for many times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# An upload is one message. Jupyter drops messages of more than 10 MB without a word, and cameras write larger files.
os.environ["COURSE_UPLOAD_MB"] = "50"      # what panels say
get_config().ServerApp.tornado_settings = {"websocket_max_message_size": 50 * 2**20}  # noqa: F821
