"""Decisions of gateways: refusals are kept here, and any decision is explained."""
