"""The directory: organizations are searched, filtered, sorted and shown with what they have, use and pay."""
