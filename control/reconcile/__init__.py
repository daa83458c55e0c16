"""Whether Redis counts what the events say: drift is found and repaired while traffic flows, and what Redis lost is
recognised before it gives a unit away."""
