"""What a run reads and leaves: config files in; checkpoints, logs and results out.

Both models import it before torch, so here stands how torch's threads wait for work.
"""

import os

# After a parallel loop, OpenMP's threads would keep their cores busy for a while, waiting for more.
# Our own thread pool, and everybody else on the machine, needs the cores: on two busy ones a
# referring step took 8.1 s, and takes 0.9 s without.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
