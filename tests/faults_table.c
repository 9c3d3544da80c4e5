/*
 * Every known fault planted into dumps of every shape and dtype: was it caught, was it named?
 *
 *   faults_table [--check]     prints the table; --check exits 1 unless all that show are caught and named
 */
#include <stdio.h>
#include <string.h>

#include "tests/plant.h"
#include "check/check.h"

/* Small cases that between them let every fault show. */
static const char *const cases[] = {"small", "small-ties", "groups", "p3", "sharpest"};
static const lh_dtype dtypes[] = {LH_F32, LH_BF16, LH_F16};

struct count {
    int shown, caught, named;
};

static bool named(const check_report *report, const lh_fault *fault)
{
    for (int i = 0; i < report->fault_count; i++) {
        if (report->faults[i] == fault)
            return true;
    }
    return false;
}

static const verify_case *case_by_id(const char *id)
{
    const verify_case *c;
    for (int i = 0; (c = verify_case_at(i)); i++) {
        if (strcmp(c->id, id) == 0)
            return c;
    }
    return NULL;
}

static lh_status try_one(const lh_fault *fault, const verify_case *c, lh_dtype dtype, enum plant_shape shape,
                         bool verbose, struct count *count, lh_error *error)
{
    struct planted planted;
    check_report report;
    lh_status status = plant(c, dtype, shape, &fault, 1, &planted, error);
    if (status == LH_OK && planted.shows) {
        status = check_dump(&c->config, planted.present, NULL, &report, error);
        if (status == LH_OK) {
            const bool caught = report.first_wrong >= 0;
            count->shown++;
            count->caught += caught;
            count->named += caught && named(&report, fault);
            if (verbose && !(caught && named(&report, fault)))
                fprintf(stderr, "%s on %s %s shape %d: %s\n", fault->name, c->id, lh_dtype_name(dtype),
                        (int)shape, caught ? "not named" : "not caught");
        }
    }
    verify_free(&planted.trace);
    return status == LH_UNSUPPORTED ? LH_OK : status;
}

int main(int argc, char **argv)
{
    const bool checking = argc > 1 && strcmp(argv[1], "--check") == 0;
    const bool verbose = argc > 1 && strcmp(argv[1], "--verbose") == 0;
    static const char *const shapes[] = {"full trace", "fused layer", "inputs and outputs"};
    const lh_fault *fault;
    struct count total[PLANT_SHAPES] = {{0}};
    bool good = true;
    lh_error error;
    printf("%-30s %3s", "fault", "no.");
    for (int s = 0; s < PLANT_SHAPES; s++)
        printf("  %-22s", shapes[s]);
    printf("\n");
    for (int i = 0; (fault = lh_fault_at(i)); i++) {
        printf("%-30s %3d", fault->name, fault->family);
        for (int s = 0; s < PLANT_SHAPES; s++) {
            struct count count = {0};
            for (size_t k = 0; k < sizeof cases / sizeof *cases * 3; k++) {
                if (try_one(fault, case_by_id(cases[k / 3]), dtypes[k % 3], (enum plant_shape)s, verbose,
                            &count, &error) != LH_OK) {
                    fprintf(stderr, "%s: %s\n", fault->name, error.text);
                    return 2;
                }
            }
            char text[40];
            snprintf(text, sizeof text, "%d: %d caught, %d named", count.shown, count.caught, count.named);
            printf("  %-22s", text);
            total[s].shown += count.shown;
            total[s].caught += count.caught;
            total[s].named += count.named;
            if (s == PLANT_FULL)
                good = good && count.shown > 0 && count.named > 0;
        }
        printf("\n");
        fflush(stdout);
    }
    printf("%-30s %3s", "all", "");
    for (int s = 0; s < PLANT_SHAPES; s++)
        printf("  %d: %d caught, %d named", total[s].shown, total[s].caught, total[s].named);
    printf("\n");
    return checking && !good ? 1 : 0;
}
