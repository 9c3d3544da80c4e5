/* The table that grows line by line as points are timed. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "bench/bench.h"

static const char *const pass_names[BENCH_PASSES] = {"forward", "backward"};

static const char *mebibytes(size_t bytes, char text[24])
{
    if (bytes == 0)
        return "-";
    snprintf(text, 24, "%.1f", (double)bytes / (1 << 20));
    return text;
}

static const char *percent(double part, double whole, char text[24])
{
    if (whole <= 0)
        return "-";
    snprintf(text, 24, "%.0f %%", 100 * part / whole);
    return text;
}

void bench_table_head(FILE *file, const bench_machine *machine, const bench_request *request)
{
    const lh_config *c = &request->config;
    fprintf(file, "%s, %d thread%s: ", machine->processor, machine->threads,
            machine->threads == 1 ? "" : "s");
    if (machine->product_flops > 0)
        fprintf(file, "%s %.1f GFLOP/s, ", machine->product, machine->product_flops * 1e-9);
    else
        fprintf(file, "no OpenBLAS to measure sgemm with, ");
    fprintf(file, "copy %.1f GB/s (read and written)\n", machine->copy_bytes * 1e-9);
    fprintf(file,
            "B %" PRId64 ", H %" PRId64 ", G %" PRId64 ", d %" PRId64 ", %s; lighthouse: L %" PRId64
            ", p %" PRId64 "\n",
            c->batch, c->heads, c->kv_heads, c->dim, lh_dtype_name(request->dtype), c->levels, c->pool);
    fputs(
        "GFLOP/s count causal attention alone: 2 S^2 d H forward, 2.5 times that backward; product: their share of the matrix "
        "product\nabove, or of one that they took turns with: median and quartiles of the turns. Times leave out transfers "
        "between host and device,\nwhich stand beside them in ms. MiB: tensors of the caller, what the plan says it holds, what "
        "was resident here at most beyond the\nstart of the point. vs dense: its median over this one's.\n\n",
        file);
    fprintf(file, "%-7s %8s %-10s %-8s %7s %6s %9s %9s %4s %8s %12s %9s %10s %8s %8s %8s\n", "backend",
            "tokens", "attention", "pass", "S", "topk", "min ms", "median", "runs", "GFLOP/s", "product",
            "transfer", "MiB caller", "plan", "peak", "vs dense");
}

void bench_table_device(FILE *file, const bench_machine *device)
{
    if (!device->backend)
        return;
    fprintf(file, "%s %d, %s: ", device->backend, device->device, device->processor);
    if (device->product_flops > 0)
        fprintf(file, "%s %.1f GFLOP/s, ", device->product, device->product_flops * 1e-9);
    else
        fprintf(file, "no library to measure a matrix product with, ");
    fprintf(file, "copy on it %.1f GB/s (read and written); shares are of these\n",
            device->copy_bytes * 1e-9);
}

static const char *share_of_product(const bench_time *time, double rate, const bench_machine *machine,
                                    char text[24])
{
    if (time->turns == 0)
        return percent(rate, machine->product_flops, text);
    snprintf(text, 24, "%.0f %% %.0f-%.0f", 100 * time->share, 100 * time->low, 100 * time->high);
    return text;
}

static void pass_line(FILE *file, const bench_machine *machine, const bench_point *point, bench_pass pass,
                      const bench_point *dense)
{
    const bench_request *request = &point->request;
    const bench_time *time = &point->pass[pass];
    const double rate = bench_operations(&request->config, &point->layout, pass) / time->least;
    char share[24], ours[24], plan[24], peak[24], transfer[24] = "-", times[24] = "", topk[24] = "-";
    if (time->transfer > 0)
        snprintf(transfer, sizeof transfer, "%.3f", 1e3 * time->transfer);
    if (dense && dense->timed_heads > 0)
        snprintf(times, sizeof times, " %8.2f", dense->pass[pass].median / time->median);
    if (!request->dense)
        snprintf(topk, sizeof topk, "%" PRId64, request->config.topk);
    fprintf(file, "%-7s %8" PRId64 " %-10s %-8s %7" PRId64 " %6s %9.3f %9.3f %4d %8.1f %12s %9s",
            request->backend, request->config.tokens, request->dense ? "dense" : "lighthouse",
            pass_names[pass], point->layout.selected, topk, 1e3 * time->least, 1e3 * time->median, time->runs,
            rate * 1e-9, share_of_product(time, rate, machine, share), transfer);
    fprintf(file, " %10s %8s %8s%s", mebibytes(point->tensors, ours), mebibytes(point->workspace, plan),
            mebibytes(point->peak, peak), times);
    const int64_t heads = request->config.batch * request->config.heads;
    if (point->timed_heads < heads)
        fprintf(file, "%*s  %" PRId64 " head timed, times %" PRId64, *times ? 0 : 9, "", point->timed_heads,
                heads / point->timed_heads);
    fprintf(file, "\n");
}

void bench_table_point(FILE *file, const bench_machine *machine, const bench_point *point,
                       const bench_point *dense)
{
    const bench_request *request = &point->request;
    if (point->timed_heads == 0) {
        fprintf(file,
                "%-7s %8" PRId64
                " %-10s skipped: one backward pass would take about %.2g s (--patience %g)\n",
                request->backend, request->config.tokens, request->dense ? "dense" : "lighthouse",
                point->expected, request->patience);
        return;
    }
    for (int pass = 0; pass < BENCH_PASSES; pass++)
        pass_line(file, machine, point, (bench_pass)pass, dense);
    fflush(file);
}

void bench_table_stages(FILE *file, const bench_machine *machine, const bench_point *point)
{
    const bench_request *request = &point->request;
    for (int stage = 0; stage < LH_STAGE_COUNT && point->timed_heads > 0; stage++) {
        const bench_pass pass = stage < LH_SCATTER_BACKWARD ? BENCH_FORWARD : BENCH_BACKWARD;
        const bench_time *time = &point->pass[pass];
        const double seconds = time->stage[stage];
        const double bytes =
            bench_stage_bytes(&request->config, &point->layout, request->dtype, (lh_stage)stage);
        char share[24], part[24];
        if (seconds <= 0)
            continue;
        fprintf(file, "    %-17s %10.3f ms %6s of %s", lh_stage_name((lh_stage)stage), 1e3 * seconds,
                percent(seconds, time->median, part), pass_names[pass]);
        if (stage == LH_ATTEND || stage == LH_ATTEND_BACKWARD) {
            const double rate = bench_operations(&request->config, &point->layout, pass) / seconds;
            fprintf(file, "  %8.1f GFLOP/s %6s of the product", rate * 1e-9,
                    percent(rate, time->turns > 0 ? time->product_flops : machine->product_flops, share));
        } else if (bytes > 0) {
            fprintf(file, "  %8.1f GB/s    %6s of the copy", bytes / seconds * 1e-9,
                    percent(bytes / seconds, machine->copy_bytes, share));
        }
        fprintf(file, "\n");
    }
    fflush(file);
}

static bool moved(double before, double after)
{
    return fabs(before - after) > 0.1 * before;
}

void bench_table_foot(FILE *file, const bench_result *result)
{
    const bench_machine *before = &result->machine, *after = &result->after;
    if (!moved(before->product_flops, after->product_flops) && !moved(before->copy_bytes, after->copy_bytes))
        return;
    fprintf(
        file,
        "\nThe machine was not steady: sgemm %.1f GFLOP/s and copy %.1f GB/s at the start, %.1f and %.1f at the "
        "end.\nShares are of the rates at the start; compare only what lies close together.\n",
        before->product_flops * 1e-9, before->copy_bytes * 1e-9, after->product_flops * 1e-9,
        after->copy_bytes * 1e-9);
}
