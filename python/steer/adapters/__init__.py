"""steer behind other libraries' interfaces. Each module needs its library; nothing here is imported unasked."""
