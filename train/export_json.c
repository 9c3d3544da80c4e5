/* The documents beside the weights: what transformers must know of the model, and a tokenizer of bytes. */
#include "core/json.h"
#include "train/export.h"

json_t *export_config(const settings *s)
{
    return json_pack(
        "{s:[s], s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:f, s:b, s:b, s:f, s:{s:s, s:f}, s:b, "
        "s:s, s:n, s:n}",
        "architectures", "LlamaForCausalLM", "model_type", "llama", "vocab_size", BYTES, "hidden_size",
        (json_int_t)s->width, "intermediate_size", (json_int_t)s->hidden, "num_hidden_layers",
        (json_int_t)s->layers, "num_attention_heads", (json_int_t)s->heads, "num_key_value_heads",
        (json_int_t)s->kv_heads, "head_dim", (json_int_t)s->dim, "hidden_act", "silu",
        "max_position_embeddings", (json_int_t)s->context, "rms_norm_eps", 1e-5 /* kernels.h */,
        "attention_bias", 0, "mlp_bias", 0, "rope_theta", s->rotary_base, "rope_parameters", "rope_type",
        "default", "rope_theta", s->rotary_base, "tie_word_embeddings", (int)s->tied, "torch_dtype",
        "float32", "bos_token_id", "eos_token_id");
}

json_t *export_tokenizer_config(const settings *s)
{
    return json_pack("{s:s, s:b, s:I}", "tokenizer_class", "PreTrainedTokenizerFast",
                     "clean_up_tokenization_spaces", 0, "model_max_length", (json_int_t)s->context);
}

/* GPT-2's printable name of a byte, which byte-level tokenizers use, in UTF-8: itself, or 256 and on where it does not
 * print. `others` counts the latter. */
static void name_byte(int byte, int *others, char name[3])
{
    const bool prints = (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
    const int point = prints ? byte : 256 + (*others)++;
    name[0] = (char)(point < 128 ? point : 0xc0 | point >> 6);
    name[1] = (char)(point < 128 ? 0 : 0x80 | (point & 63));
    name[2] = 0;
}

json_t *export_tokenizer(void)
{
    json_t *vocabulary = json_object();
    int others = 0;
    for (int byte = 0; byte < BYTES; byte++) {
        char name[3];
        name_byte(byte, &others, name);
        vocabulary = lh_json_set(vocabulary, name, json_integer(byte));
    }
    json_t *level = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                              "trim_offsets", 0, "use_regex", 0);
    json_t *pairs = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:[]}", "type", "BPE", "dropout",
                              "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                              "byte_fallback", 0, "ignore_merges", 0, "merges");
    json_t *all = json_pack("{s:s, s:n, s:n, s:[], s:n, s:n}", "version", "1.0", "truncation", "padding",
                            "added_tokens", "normalizer", "post_processor");
    all = lh_json_set(all, "pre_tokenizer", json_deep_copy(level));
    all = lh_json_set(all, "decoder", level);
    return lh_json_set(all, "model", lh_json_set(pairs, "vocab", vocabulary));
}
