"""What the machine needs: whole files, locks, worker processes, devices, hosts. Knows nothing of sound or networks."""
