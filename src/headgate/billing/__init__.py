"""What tenants owe, told to whoever bills them."""
