"""The HTTP handlers, one module a resource. They read the request, call a service, and shape the answer."""
