"""Downloads, checked and unpacked."""
