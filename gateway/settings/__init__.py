"""What an operator may set in the gateway's settings file is read and checked here."""
