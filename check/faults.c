/* The faults of all stages as one list. */
#include <string.h>

#include "check/faults.h"

static const lh_fault *const tables[] = {lh_faults_pool,    lh_faults_select, lh_faults_attend,
                                         lh_faults_scatter, lh_faults_unpool, lh_faults_field};

const lh_fault *lh_fault_at(int i)
{
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        for (const lh_fault *fault = tables[t]; fault->name; fault++) {
            if (i-- == 0)
                return fault;
        }
    }
    return NULL;
}

const lh_fault *lh_fault_by_name(const char *name)
{
    const lh_fault *fault;
    for (int i = 0; (fault = lh_fault_at(i)); i++) {
        if (strcmp(fault->name, name) == 0)
            return fault;
    }
    return NULL;
}
