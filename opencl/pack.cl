/*
 * pack.cl: between tensors as they are stored and what attention on CPUs reads and writes, float32: so its programs are the
 * same for every dtype, and for every d of a width.
 *
 * Tokens of a head are padded with zeros to `padded`, columns to `wide`. One work-item packs `tile` tokens of a head.
 */

/* x [heads,S,d] -> [heads][wide/panel][padded][panel]: tokens are a product's inner dimension. */
kernel void pack_rows(const global store_t *x, global float *packed, int panel, int wide, int tile,
                      long padded_rows, const struct shape s)
{
    const index_t padded = padded_rows, tiles = padded / tile;
    const long local_head = get_global_id(0) / tiles;
    const index_t begin = get_global_id(0) % tiles * tile;
    for (index_t row = begin; row < begin + tile; row++) {
        const bool there = row < s.selected;
        const long from = ((s.sel_first + local_head) * s.selected + row) * s.dim;
        for (int p = 0; p < wide / panel; p++) {
            global float *to = packed + ((local_head * (wide / panel) + p) * padded + row) * panel;
            for (int c = 0; c < panel; c++)
                to[c] = there && p * panel + c < s.dim ? load(x, from + p * panel + c) : 0.0f;
        }
    }
}

/* x [heads,S,d] -> [heads][padded/panel][wide][panel]: tokens are a product's columns. */
kernel void pack_columns(const global store_t *x, global float *packed, int panel, int wide, int tile,
                         long padded_rows, const struct shape s)
{
    const index_t padded = padded_rows, tiles = padded / tile;
    const long local_head = get_global_id(0) / tiles;
    const index_t begin = get_global_id(0) % tiles * tile;
    for (index_t row = begin; row < begin + tile; row++) {
        const bool there = row < s.selected;
        const long from = ((s.sel_first + local_head) * s.selected + row) * s.dim;
        global float *to = packed + (local_head * padded + row / panel * panel) * wide + row % panel;
        for (int c = 0; c < wide; c++)
            to[c * panel] = there && c < s.dim ? load(x, from + c) : 0.0f;
    }
}

/* x [heads,S,d] of the chunk -> the same in float32 */
kernel void widen_rows(const global store_t *x, global float *wide, const struct shape s)
{
    const long row = get_global_id(0);
    if (row >= s.here * s.selected)
        return;
    for (int c = 0; c < s.dim; c++)
        wide[row * s.dim + c] = load(x, (s.sel_first * s.selected + row) * s.dim + c);
}

/* And back. */
kernel void narrow_rows(const global float *wide, global store_t *x, const struct shape s)
{
    const long row = get_global_id(0);
    if (row >= s.here * s.selected)
        return;
    for (int c = 0; c < s.dim; c++)
        store(wide[row * s.dim + c], x, (s.sel_first * s.selected + row) * s.dim + c);
}

/* dq_parts [heads][parts][padded][wide] -> dq_sel [heads,S,d] = scale * the sum of its parts, one work-item a row. */
kernel void sum_parts(const global float *dq_parts, global store_t *dq_sel, int wide, long padded,
                      const struct shape s)
{
    const long row = get_global_id(0);
    if (row >= s.here * s.selected)
        return;
    const global float *from = dq_parts + (row / s.selected * s.parts * padded + row % s.selected) * wide;
    for (int c = 0; c < s.dim; c += VEC) {
        vfloat sum = 0;
        for (int part = 0; part < s.parts; part++)
            sum += *(const global vfloat *)(from + (long)part * padded * wide + c);
        store_columns(sum * s.scale, dq_sel, (s.sel_first * s.selected + row) * s.dim + c, s.dim - c);
    }
}
