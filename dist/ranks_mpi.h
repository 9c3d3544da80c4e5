/* ranks_mpi.h: ranks that are MPI processes. Linked into the program alone. */
#ifndef LH_DIST_RANKS_MPI_H
#define LH_DIST_RANKS_MPI_H

#include "lighthouse_dist.h"

/* Starts MPI. The exchange among all processes lasts until lh_mpi_stop. */
lh_status lh_mpi_start(lh_exchange *exchange, lh_error *error);
void lh_mpi_stop(void);
/* Ends every process with this exit status: for a rank that cannot go on while others wait for it. */
void lh_mpi_abort(int status);

#endif
