/*
 * pack.cl: between tensors as they are stored and what attention on CPUs reads and writes, float32: so its programs are the
 * same for every dtype, and for every d of a width.
 *
 * Tokens of a head are padded with zeros to `padded`, columns to `wide`. One work-item packs `tile` tokens of a head. A panel is
 * a multiple of 4.
 */

/* x [heads,S,d] -> [heads][padded/tile][wide/panel][tile][panel]: tokens are a product's inner dimension. */
kernel void pack_rows(const global store_t *x, global float *packed, int panel, int wide, int tile,
                      long padded_rows, const struct shape s)
{
    const index_t padded = padded_rows, tiles = padded / tile;
    const long local_head = get_global_id(0) / tiles;
    const index_t begin = get_global_id(0) % tiles * tile;
    for (int row = 0; row < tile; row++) {
        const long from = ((s.sel_first + local_head) * s.selected + begin + row) * s.dim;
        global float *to = packed + (local_head * padded + begin) * wide + row * panel;
        for (int c = 0, at = 0; c < wide; c += VEC) {
            union fours values;
            values.row[0] = begin + row < s.selected ? load_columns(x, from + c, s.dim - c) : (vfloat)0;
            for (int i = 0; i < VEC / 4 && c + 4 * i < wide; i++) {
                *(global float4 *)(to + at) = values.part[0][i];
                at += 4;
                if (at == panel) {
                    to += tile * panel;
                    at = 0;
                }
            }
        }
    }
}

/* x [heads,S,d] -> [heads][padded/panel][wide][panel]: tokens are a product's columns. logits: times log2(e)/sqrt(d). */
kernel void pack_columns(const global store_t *x, global float *packed, int panel, int wide, int tile,
                         long padded_rows, int logits, const struct shape s)
{
    const index_t padded = padded_rows, tiles = padded / tile;
    const long local_head = get_global_id(0) / tiles;
    const index_t begin = get_global_id(0) % tiles * tile;
    const float scale = logits ? s.scale * M_LOG2E_F : 1;
    for (index_t row = begin; row < begin + tile; row += 4) {
        const long from = ((s.sel_first + local_head) * s.selected + row) * s.dim;
        global float *to = packed + (local_head * padded + row / panel * panel) * wide + row % panel;
        for (int c = 0; c < wide; c += VEC) {
            union fours rows;
            for (int i = 0; i < 4; i++)
                rows.row[i] = row + i < s.selected
                                  ? load_columns(x, from + (long)i * s.dim + c, s.dim - c) * scale
                                  : (vfloat)0;
            for (int i = 0; i < VEC / 4 && c + 4 * i < wide; i++) {
                float4 columns[4];
                transpose_part(&rows, i, columns);
                for (int n = 0; n < 4; n++)
                    *(global float4 *)(to + (c + 4 * i + n) * panel) = columns[n];
            }
        }
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

/* dq_parts [heads][parts][padded][wide] -> dq_sel [heads,S,d] = scale * the sum of its parts, one work-item a row. Part i
 * begins with the tile of `rows` queries that holds key i * columns. */
kernel void sum_parts(const global float *dq_parts, global store_t *dq_sel, int wide, long padded, int rows,
                      int columns, const struct shape s)
{
    const long row = get_global_id(0);
    if (row >= s.here * s.selected)
        return;
    const long local_head = row / s.selected, query = row % s.selected;
    const global float *from = dq_parts + (local_head * s.parts * padded + query) * wide;
    const int parts = min((long)s.parts, ((query / rows + 1) * rows + columns - 1) / columns);
    for (int c = 0; c < s.dim; c += VEC) {
        vfloat sum = *(const global vfloat *)(from + c);
        for (int part = 1; part < parts; part++)
            sum += *(const global vfloat *)(from + (long)part * padded * wide + c);
        store_columns(sum * s.scale, dq_sel, (s.sel_first * s.selected + row) * s.dim + c, s.dim - c);
    }
}
