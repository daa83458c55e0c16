"""A year of 200 organizations, for `quotagate up --demo-history`. What they do is drawn (`lives.py`, `traffic.py`), and
happens by the control plane's own functions and the Stripe double, whose clock is moved through it (`build.py`)."""
