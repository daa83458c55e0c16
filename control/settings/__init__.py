"""Everything an operator can decide about the control plane: the shape of `config/control.yaml`."""
