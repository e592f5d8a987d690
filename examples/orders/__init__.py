"""Track the parcels of many clients, up to fifty in one call to the carrier."""
