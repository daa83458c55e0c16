"""`python -m quotagate`, for where the script is not on the PATH."""

from quotagate.main import app

app(prog_name="quotagate")
