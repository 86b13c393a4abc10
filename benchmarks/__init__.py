"""What the course's techniques cost, beside the bare passes that they need and beside Captum: `make bench`."""
