"""What a request costs is worked out here, from the request or from what its answer reports."""
