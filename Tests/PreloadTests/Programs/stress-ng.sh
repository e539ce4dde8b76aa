# stress-ng: its malloc stressor, with verification, for a few seconds.
stress-ng --malloc 4 --malloc-ops 200000 --verify --timeout 60 --quiet && echo done
stress-ng --malloc 2 --malloc-pthreads 2 --malloc-ops 100000 --verify --timeout 60 --quiet && echo done
