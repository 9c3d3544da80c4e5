/* `lighthouse run`: one layer over tensors from a file; every tensor of SPEC 5 on request. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "cli/ranks.h"

static const char doc[] =
    "Run one layer of Lighthouse Attention over the q, k, v in IN and write the result to OUT.\v"
    "IN is a safetensors file with q [B,H,N,d] and k, v [B,G,N,d] in F64, F32, F16 or BF16, and dout "
    "[B,H,N,d] "
    "when gradients are wanted. levels, pool, topk, tile_topk (128 unless said) come from its __metadata__ "
    "as "
    "strings; flags override them.\n\n"
    "OUT gets out [B,H,N,d] and lse [B,H,S], and dq, dk, dv where IN has dout. It is written whole or not at "
    "all; its __metadata__ carries the configuration, so that OUT of --trace is itself a valid IN.\n\n"
    "Example: from NumPy to every intermediate tensor, in exact double precision:\n\n"
    "  python3 - <<'END'\n"
    "  import numpy as np, safetensors.numpy as st\n"
    "  rng = np.random.default_rng(0)\n"
    "  st.save_file({n: rng.standard_normal((1, 2, 4096, 64), np.float32)\n"
    "                for n in ('q', 'k', 'v', 'dout')}, 'in.safetensors')\n"
    "  END\n"
    "  lighthouse run --levels 3 --pool 4 --topk 128 --trace in.safetensors trace.safetensors\n\n"
    "The same with another backend's arithmetic but the reference's choice of entries:\n\n"
    "  lighthouse run --backend openmp --levels 3 --pool 4 --topk 128 \\\n"
    "                 --index trace.safetensors in.safetensors out.safetensors\n\n"
    "The same layer over four processes, each with a fourth of the tokens:\n\n"
    "  mpirun -n 4 lighthouse run --backend openmp in.safetensors out.safetensors\n\n" CLI_EXIT_STATUS_HELP;

enum {
    DENSE = 1000,
    TRACE,
    INDEX,
    SCORES
};

static const struct argp_option options[] = {
    {"dtype", 't', "TYPE", 0,
     "f32, f64, bf16 or f16; default f64 for ref, else the file's own where it is bf16 or f16, else f32", 1},
    {"dense", DENSE, NULL, 0, "attention over all N tokens: --levels 1", 2},
    {"trace", TRACE, NULL, 0, "run stage by stage and write every tensor in between", 3},
    {"index", INDEX, "FILE", 0, "take `index` from FILE instead of selecting", 3},
    {"scores", SCORES, "FILE", 0, "take `score_q` and `score_k` from FILE instead of the norms", 3},
    {"verbose", 'v', NULL, 0, "say on stderr what is done and how long it took (default on a terminal)", 3},
    {0},
};

struct run {
    cli_where where;
    cli_wish wish;
    cli_ranks ranks;
    const char *command, *backend, *in_path, *out_path, *index_path, *scores_path;
    bool dtype_given, trace, verbose;
    lh_dtype dtype;

    lh_config config;
    lh_file *file, *index_file, *scores_file;
    lh_tensor tensors[LH_TENSOR_COUNT];
    void *owned[LH_TENSOR_COUNT]; /* what of them is ours to free */
    bool backward;
    lh_plan *plan;
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct run *run = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &run->where;
        state->child_inputs[1] = &run->wish;
        state->child_inputs[2] = &run->ranks;
        break;
    case 't':
        run->dtype = cli_dtype(state, argument);
        run->dtype_given = true;
        break;
    case DENSE:
        run->wish.dense = true;
        break;
    case TRACE:
        run->trace = true;
        break;
    case INDEX:
        run->index_path = argument;
        break;
    case SCORES:
        run->scores_path = argument;
        break;
    case 'v':
        run->verbose = true;
        break;
    case ARGP_KEY_ARG:
        if (state->arg_num > 1)
            argp_error(state, "third file is '%s', wanted IN.safetensors and OUT.safetensors only", argument);
        *(state->arg_num == 0 ? &run->in_path : &run->out_path) = argument;
        break;
    case ARGP_KEY_END:
        if (!run->out_path)
            argp_error(state, "%s is missing, wanted IN.safetensors OUT.safetensors",
                       run->in_path ? "OUT.safetensors" : "IN.safetensors");
        if (run->wish.dense && run->wish.levels > 1)
            argp_error(state, "--levels is %" PRId64 ", wanted 1 or none with --dense", run->wish.levels);
        if (run->index_path && run->scores_path)
            argp_error(state, "--scores is %s, wanted none with --index", run->scores_path);
        if (run->ranks.ranks > 0 && run->trace)
            argp_error(state, "--trace is given with --ranks, wanted one of them");
        if (run->ranks.ranks > 0 && run->scores_path)
            argp_error(state, "--scores is given with --ranks, wanted one of them");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* Replacing what is read by what was made of it would lose it. */
static lh_status check_paths(const struct run *run, lh_error *error)
{
    cli_input(run->in_path);
    if (run->index_path)
        cli_input(run->index_path);
    if (run->scores_path)
        cli_input(run->scores_path);
    return cli_check_output(run->out_path, error);
}

static lh_dtype choose_dtype(const struct run *run)
{
    if (run->dtype_given)
        return run->dtype;
    lh_capabilities can;
    if (lh_backend_query(run->backend, &can, NULL) == LH_OK && (can.dtypes & 1u << LH_F64) != 0)
        return LH_F64;
    const lh_dtype in = lh_file_find(run->file, "q")->dtype;
    return in == LH_F16 || in == LH_BF16 ? in : LH_F32;
}

/* As a plan of run->dtype has them. */
static lh_status read_scores(struct run *run, lh_error *error)
{
    char found[LH_SHAPE_TEXT], wanted[LH_SHAPE_TEXT];
    lh_status status = lh_file_read(run->scores_path, &run->scores_file, error);
    for (int id = LH_SCORE_Q; id <= LH_SCORE_K && status == LH_OK; id++) {
        lh_tensor like, *t = &run->tensors[id];
        status = lh_tensor_describe(&run->config, run->dtype, (lh_tensor_id)id, &like, error);
        if (status == LH_OK)
            status =
                cli_input_tensor(run->scores_file, (lh_tensor_id)id, like.dtype, t, &run->owned[id], error);
        if (status == LH_OK &&
            (t->rank != like.rank || memcmp(t->shape, like.shape, sizeof(int64_t) * (size_t)like.rank) != 0))
            status =
                lh_fail(error, LH_INVALID, "%s has shape %s, wanted %s", lh_tensor_name((lh_tensor_id)id),
                        lh_shape_text(t, found), lh_shape_text(&like, wanted));
    }
    return status;
}

static lh_status read_inputs(struct run *run, lh_error *error)
{
    static const lh_tensor_id inputs[] = {LH_Q, LH_K, LH_V, LH_DOUT};
    lh_status status = lh_file_read(run->in_path, &run->file, error);
    if (status == LH_OK)
        status = cli_input_config(run->file, &run->wish, &run->config, error);
    if (status != LH_OK)
        return status;
    run->dtype = choose_dtype(run);
    run->backward = lh_file_find(run->file, "dout") != NULL;
    bool borrowed = false;
    for (int i = 0; i < 3 + run->backward && status == LH_OK; i++) {
        const lh_tensor_id id = inputs[i];
        status = cli_input_tensor(run->file, id, run->dtype, &run->tensors[id], &run->owned[id], error);
        borrowed = borrowed || !run->owned[id];
    }
    if (status == LH_OK && !borrowed) {
        lh_file_free(run->file);
        run->file = NULL;
    }
    if (status == LH_OK && run->scores_path)
        status = read_scores(run, error);
    if (status == LH_OK && run->index_path) {
        status = lh_file_read(run->index_path, &run->index_file, error);
        if (status == LH_OK)
            status = cli_input_index(run->index_file, &run->config, &run->tensors[LH_INDEX],
                                     &run->owned[LH_INDEX], error);
    }
    return status;
}

static bool is_output(const struct run *run, lh_tensor_id id)
{
    const bool gradient = id >= LH_DO_SEL;
    if (run->tensors[id].data || (gradient && !run->backward) || id == LH_DOUT)
        return false;
    return run->trace || id == LH_OUT || id == LH_LSE || id >= LH_DQ;
}

static lh_status allocate_outputs(struct run *run, lh_error *error)
{
    lh_status status = LH_OK;
    for (int id = 0; id < LH_TENSOR_COUNT && status == LH_OK; id++) {
        lh_tensor *t = &run->tensors[id];
        if (!is_output(run, (lh_tensor_id)id))
            continue;
        status = lh_tensor_describe(&run->config, run->dtype, (lh_tensor_id)id, t, error);
        if (status == LH_OK)
            status = lh_alloc(&run->owned[id], (size_t)lh_tensor_elements(t) * lh_dtype_size(t->dtype),
                              lh_tensor_name((lh_tensor_id)id), error);
        t->data = run->owned[id];
    }
    return status;
}

static double begin(const struct run *run, const char *what)
{
    if (run->verbose)
        fprintf(stderr, "%-16s ", what);
    return lh_seconds();
}

static void finish(const struct run *run, double since)
{
    if (run->verbose)
        fprintf(stderr, "%10.3f s\n", lh_seconds() - since);
}

static lh_status run_stages(struct run *run, lh_error *error)
{
    lh_status status = LH_OK;
    const int stages = run->backward ? LH_STAGE_COUNT : LH_SCATTER_BACKWARD;
    for (int stage = 0; stage < stages && status == LH_OK; stage++) {
        if ((stage == LH_SELECT && run->index_path) || (stage == LH_SCORE && run->scores_path))
            continue;
        const double since = begin(run, lh_stage_name((lh_stage)stage));
        status = lh_run_stage(run->plan, (lh_stage)stage, run->tensors, error);
        finish(run, since);
    }
    return status;
}

static lh_status run_whole(struct run *run, lh_error *error)
{
    double since = begin(run, "forward");
    lh_status status = lh_forward(run->plan, run->tensors, error);
    finish(run, since);
    if (status != LH_OK || !run->backward)
        return status;
    since = begin(run, "backward");
    status = lh_backward(run->plan, run->tensors, error);
    finish(run, since);
    return status;
}

static lh_status run_ranks(struct run *run, const lh_options *plan_options, lh_error *error)
{
    cli_layer layer = {.config = run->config, .options = *plan_options, .verbose = run->verbose};
    memcpy(layer.trace, run->tensors, sizeof layer.trace);
    return cli_ranks_layer(&run->ranks, &layer, error);
}

static void summarise(const struct run *run)
{
    const lh_config *c = lh_plan_config(run->plan);
    char bytes[32];
    fprintf(stderr, "%s, %s: B %" PRId64 ", H %" PRId64 ", G %" PRId64 ", N %" PRId64 ", d %" PRId64,
            run->backend, lh_dtype_name(run->dtype), c->batch, c->heads, c->kv_heads, c->tokens, c->dim);
    if (c->levels == 1)
        fprintf(stderr, ", dense");
    else
        fprintf(stderr, ", L %" PRId64 ", p %" PRId64 ", k %" PRId64 ", m %" PRId64, c->levels, c->pool,
                c->topk, c->tile_topk);
    fprintf(stderr, ": S %" PRId64 "; workspace %s\n", lh_plan_layout(run->plan)->selected,
            cli_bytes((double)lh_plan_workspace(run->plan), bytes));
}

static lh_status compute(struct run *run, lh_error *error)
{
    const lh_options plan_options = {.backend = run->backend,
                                     .device = run->where.device,
                                     .dtype = run->dtype,
                                     .attention = run->where.attention,
                                     .backward = run->backward,
                                     .stages = run->trace,
                                     .index_given = run->index_path != NULL,
                                     .scores_given = run->scores_path != NULL};
    if (run->ranks.ranks > 0)
        return run_ranks(run, &plan_options, error);
    lh_status status = lh_plan_create(&run->config, &plan_options, &run->plan, error);
    if (status != LH_OK)
        return status;
    if (run->verbose)
        summarise(run);
    return run->trace ? run_stages(run, error) : run_whole(run, error);
}

static lh_status write_outputs(const struct run *run, lh_error *error)
{
    char text[LH_CONFIG_METAS][24];
    lh_file_meta meta[LH_CONFIG_METAS + 4];
    int metas = LH_CONFIG_METAS;
    lh_config_metadata(&run->config, text, meta);
    meta[metas++] = (lh_file_meta){"scorer", run->scores_path ? "given" : "norm"};
    meta[metas++] = (lh_file_meta){"backend", run->backend};
    meta[metas++] = (lh_file_meta){"lighthouse", lh_version()};
    if (run->index_path)
        meta[metas++] = (lh_file_meta){"index", "given"};

    lh_file_entry entries[LH_TENSOR_COUNT];
    int count = 0;
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        const bool score = id == LH_SCORE_Q || id == LH_SCORE_K;
        const bool input =
            id <= LH_V || id == LH_DOUT || (id == LH_INDEX && run->index_path) || (score && run->scores_path);
        if (run->tensors[id].data && (run->trace || !input))
            entries[count++] = (lh_file_entry){lh_tensor_name((lh_tensor_id)id), run->tensors[id]};
    }
    const double since = begin(run, "write");
    const lh_status status = lh_file_write(run->out_path, entries, count, meta, metas, error);
    finish(run, since);
    return status;
}

static void release(struct run *run)
{
    lh_plan_destroy(run->plan);
    for (int id = 0; id < LH_TENSOR_COUNT; id++)
        lh_free(run->owned[id]);
    lh_file_free(run->index_file);
    lh_file_free(run->scores_file);
    lh_file_free(run->file);
}

int cli_run(int argc, char **argv)
{
    const struct argp_child children[] = {
        {&cli_where_one_argp, 0, NULL, 0}, {&cli_shape_argp, 0, NULL, 0}, {&cli_ranks_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {options, parse_option, "IN.safetensors OUT.safetensors", doc, children,
                              NULL,    NULL};
    struct run run = {.command = argv[0], .verbose = isatty(STDERR_FILENO) == 1};
    lh_error error;
    cli_parse(&argp, argc, argv, &run);
    run.backend = run.where.backends > 0 ? run.where.backend[0] : lh_backend_name(0);
    lh_status status = cli_ranks_start(&run.ranks, &error);
    run.verbose = run.verbose && cli_ranks_first(&run.ranks);
    if (status == LH_OK && run.ranks.ranks > 0 && run.trace)
        status = lh_fail(&error, LH_INVALID, "--trace is given under mpirun, wanted one process");
    if (status == LH_OK)
        status = cli_backend_check(run.backend, run.where.device, &error);
    if (status == LH_OK)
        status = check_paths(&run, &error);
    if (status == LH_OK)
        status = read_inputs(&run, &error);
    if (status == LH_OK)
        status = allocate_outputs(&run, &error);
    status = cli_ranks_agree(&run.ranks, status, &error);
    if (status == LH_OK)
        status = compute(&run, &error);
    if (status == LH_OK && cli_ranks_first(&run.ranks))
        status = write_outputs(&run, &error);
    release(&run);
    return cli_ranks_finish(&run.ranks, run.command, status, &error);
}
