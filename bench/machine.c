/* The floor under every rate: this machine's matrix product and its memory, on the threads that are timed. */
#include <stdio.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "bench/bench.h"
#include "core/backend.h"
#ifdef LH_BENCH_OPENBLAS
#include "bench/blas.h"
#endif

enum {
    MATRIX = 2048
};

/* The fastest of what is repeated for `seconds`, twice at least; the first only warms up. */
struct fastest {
    double seconds, spent, least;
    int runs;
};

static bool again(const struct fastest *f)
{
    return f->runs < 2 || f->spent < f->seconds;
}

static void took(struct fastest *f, double seconds)
{
    if (f->runs == 1 || (f->runs > 1 && seconds < f->least))
        f->least = seconds;
    f->spent += f->runs > 0 ? seconds : 0;
    f->runs++;
}

static void name_processor(char *name, size_t size)
{
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(name, size, "unnamed processor");
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(name, size, "%s", colon + 2);
            break;
        }
    }
    if (file)
        fclose(file);
}

lh_status bench_product_begin(int threads, bench_product *product, lh_error *error)
{
    *product = (bench_product){.threads = threads};
#ifdef LH_BENCH_OPENBLAS
    const size_t elements = (size_t)MATRIX * MATRIX;
    if (blas_load(NULL) != LH_OK)
        return LH_OK;
    const lh_status status = lh_alloc((void **)&product->a, 3 * elements * sizeof *product->a,
                                      "matrices of the sgemm rate", error);
    if (status != LH_OK)
        return status;
    for (size_t i = 0; i < 3 * elements; i++)
        product->a[i] = (float)(i % 17) * 0.25f;
#else
    (void)error;
#endif
    return LH_OK;
}

double bench_product_operations(void)
{
    return 2.0 * MATRIX * MATRIX * MATRIX;
}

double bench_product_run(const bench_product *product)
{
    const double since = lh_seconds();
#ifdef LH_BENCH_OPENBLAS
    const float *a = product->a, *b = a + MATRIX * MATRIX;
    const int before = blas.get_threads();
    blas.set_threads(product->threads);
    blas.sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, MATRIX, MATRIX, MATRIX, 1.0f, a, MATRIX, b, MATRIX,
               0.0f, product->a + 2 * MATRIX * MATRIX, MATRIX);
    blas.set_threads(before);
#else
    (void)product;
#endif
    return lh_seconds() - since;
}

void bench_product_end(bench_product *product)
{
    lh_free(product->a);
    product->a = NULL;
}

/* 0 where there is nothing to compare with. */
static lh_status measure_product(int threads, double seconds, double *flops, lh_error *error)
{
    bench_product product;
    *flops = 0;
    const lh_status status = bench_product_begin(threads, &product, error);
    if (status != LH_OK || !product.a)
        return status;
    struct fastest fastest = {.seconds = seconds};
    while (again(&fastest))
        took(&fastest, bench_product_run(&product));
    *flops = bench_product_operations() / fastest.least;
    bench_product_end(&product);
    return LH_OK;
}

/* Each thread copies its share of 256 MiB. */
static lh_status measure_copy(int threads, double seconds, double *rate, lh_error *error)
{
    const size_t bytes = (size_t)256 << 20;
    char *from;
    const lh_status status = lh_alloc((void **)&from, 2 * bytes, "blocks of the copy rate", error);
    if (status != LH_OK)
        return status;
    char *to = from + bytes;
    struct fastest fastest = {.seconds = seconds};
    while (again(&fastest)) {
        const double since = lh_seconds();
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static)
#endif
        for (int part = 0; part < threads; part++) {
            const size_t begin = bytes / (size_t)threads * (size_t)part;
            const size_t end = part == threads - 1 ? bytes : begin + bytes / (size_t)threads;
            if (fastest.runs == 0)
                memset(from + begin, part + 1, end - begin);
            memcpy(to + begin, from + begin, end - begin);
        }
        took(&fastest, lh_seconds() - since);
    }
    *rate = 2.0 * (double)bytes / fastest.least;
    lh_free(from);
    return LH_OK;
}

lh_status bench_machine_measure(int threads, double seconds, bench_machine *machine, lh_error *error)
{
    memset(machine, 0, sizeof *machine);
    name_processor(machine->processor, sizeof machine->processor);
#ifdef _OPENMP
    machine->threads = threads > 0 ? threads : omp_get_max_threads();
#else
    machine->threads = 1;
    (void)threads;
#endif
    lh_status status = measure_product(machine->threads, seconds, &machine->product_flops, error);
    if (status == LH_OK)
        status = measure_copy(machine->threads, seconds, &machine->copy_bytes, error);
    if (machine->product_flops > 0)
        snprintf(machine->product, sizeof machine->product, "sgemm %d^3", MATRIX);
    return status;
}

lh_status bench_device_measure(const char *backend, int device, lh_dtype dtype, double seconds,
                               const bench_machine *host, bench_machine *machine, lh_error *error)
{
    const lh_backend *row;
    lh_device_info info;
    lh_ceilings ceilings;
    *machine = *host;
    lh_status status = lh_backend_find(backend, device, &row, error);
    if (status != LH_OK || !row->ceilings)
        return status;
    status = lh_device_query(backend, device, &info, error);
    if (status == LH_OK)
        status = row->ceilings(device, dtype, seconds, &ceilings, error);
    if (status == LH_UNSUPPORTED) /* the device is the host's processor */
        return LH_OK;
    if (status != LH_OK)
        return status;
    *machine = (bench_machine){.backend = backend,
                               .device = device,
                               .product_flops = ceilings.product_flops,
                               .copy_bytes = ceilings.copy_bytes};
    snprintf(machine->processor, sizeof machine->processor, "%s", info.name);
    snprintf(machine->product, sizeof machine->product, "%s", ceilings.product);
    return LH_OK;
}
