"""Send what is due, within the limits of chat providers that throttle."""
