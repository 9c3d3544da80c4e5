#!/usr/bin/env python3
"""What a layer over ranks costs: bytes, messages, memory and time by docs/distributed.md's model.

    bench/ranks_model.py                      the table of that page
    bench/ranks_model.py --check points.txt   beside what `lighthouse bench --ranks` measured, in one or more of its outputs
    bench/ranks_model.py --gpus gpus.txt       beside what bench/torch_ranks.py measured, likewise

The counts are exact and of rank 0, as the program's `sent MiB` and `messages` are. Time is attention at a rate that one
rank reaches, plus alpha for a message and beta for a byte, none of it overlapped.
"""
import argparse
import math
import re


class Layer:
    def __init__(self, tokens, heads, dim, levels, pool, topk, batch=1, element=4, kv_heads=None):
        self.heads, self.group = heads, heads // (kv_heads or heads)
        self.tokens, self.sequences, self.dim, self.levels, self.pool = tokens, batch * heads, dim, levels, pool
        self.rows = tokens if levels == 1 else tokens // pool ** (levels - 1) + (levels - 1) * pool * topk
        self.element = element
        self.topk = topk

    def operations(self):
        """Of causal attention, forward and backward: 2 S^2 d H and 2.5 times that."""
        return 7.0 * self.rows**2 * self.dim * self.sequences

    def edge(self):
        """Rank 0 has a neighbour on the right alone: forward it sends rows and flags, backward it only receives."""
        more = self.levels - 1
        if more == 0:
            return 0, 0
        return self.sequences * more * (self.dim * self.element + 4), 2 * self.sequences

    def windows(self, ranks):
        """Of a rank's rows, where queries travel a window at a time (dist/window.c); 0 where whole pieces travel."""
        share = self.rows // ranks
        if self.rows < 8192 or share % 96 or self.dim % 16:
            return 0
        piece = math.lcm(self.group, ranks)  # heads that are worked on at a time
        piece = piece if self.heads % piece == 0 else self.sequences
        most = max(96, 1536 // max(piece, 2))
        return share // max(window for window in range(96, most + 1, 96) if share % window == 0)

    def by_heads(self, ranks, one_host=False):
        """(bytes, messages) of rank 0, forward and backward."""
        if ranks == 1:
            return 0, 0
        mine, share = self.sequences // ranks, self.rows // ranks
        wide, narrow = (4 + 8), 2  # q k v o; q k v o do dq dk dv; and lse, back and out again
        size = (wide * self.dim + narrow) * self.element
        edge, flags = self.edge()
        windows = self.windows(ranks) if one_host else 0
        # Windows of mine go out (q; q, o, do and lse), others' results leave (o and lse; dq); k, v, dk, dv are as ever.
        messages = 6 + windows * (1 + 4) + windows * (2 + 1) if windows else wide + narrow
        return (ranks - 1) * mine * share * size + edge, (ranks - 1) * mine * messages + flags

    def rows_kept(self, ranks):
        """(bytes, exchanges one after another) of a rank where what it attends over stays with it for the backward: q k v, o, do,
        dq dk dv; the edges' few rows, which go along, are left out.
        """
        if ranks == 1:
            return 0, 0
        return 8 * (ranks - 1) * (self.sequences // ranks) * (self.rows // ranks) * self.dim * self.element, 4

    def runs(self, rank, ranks):
        """The two runs of rows that a rank attends for."""
        cut = [self.rows // (2 * ranks) * i + self.rows % (2 * ranks) * i // (2 * ranks) for i in range(2 * ranks + 1)]
        return [(cut[i], cut[i + 1]) for i in (rank, 2 * ranks - 1 - rank)]

    def by_rows(self, ranks, rank=0):
        if ranks == 1:
            return 0, 0
        share, rows_out, runs_out, rows_back, runs_back = self.rows // ranks, 0, 0, 0, 0
        for other in range(ranks):
            if other == rank:
                continue
            for first, end in self.runs(other, ranks):  # rows that I hold and the other attends for
                n = min(end, (rank + 1) * share) - max(first, rank * share)
                rows_out, runs_out = rows_out + max(n, 0), runs_out + (n > 0)
            for first, end in self.runs(rank, ranks):  # rows that I attend for and the other holds
                n = min(end, (other + 1) * share) - max(first, other * share)
                rows_back, runs_back = rows_back + max(n, 0), runs_back + (n > 0)
        d, e = self.dim, self.element
        size = (rows_out * (d + (3 * d + 1)) + rows_back * ((d + 1) + d) + (2 + 2 + 2) * (ranks - 1) * share * d) * e
        count = runs_out * (1 + 4) + runs_back * (2 + 1) + 6 * (ranks - 1)
        edge, flags = self.edge()
        return self.sequences * size + edge, self.sequences * count + flags

    def ring(self, ranks):
        """Ring attention over the S rows: k and v go round forward; k, v, dk, dv backward."""
        return self.sequences * 6 * (ranks - 1) * (self.rows // ranks) * self.dim * self.element

    def caller(self, ranks):
        return 8 * self.sequences * self.tokens * self.dim * self.element // ranks


def table(a):
    print(f"H {a.heads}, d {a.dim}, L 3, p 4, k N/64, F32 travels; attention {a.rate:g} GFLOP/s a rank; "
          f"alpha {a.alpha:g} us, 1/beta {a.gigabytes:g} GB/s\n")
    print("| N | S | W | layout | sent MiB | messages | attention s | exchange s | of both | caller MiB a rank | ring MiB |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for tokens in (98304, 1048576, 16777216):
        layer = Layer(tokens, a.heads, a.dim, 3, 4, tokens // 64)
        for ranks in (2, 8, 64):
            for name, counted in (("heads", layer.by_heads), ("rows", layer.by_rows)):
                if name == "heads" and layer.sequences % ranks:
                    continue
                sent, messages = counted(ranks)
                attention = layer.operations() / ranks / (a.rate * 1e9)
                exchange = messages * a.alpha * 1e-6 + sent / (a.gigabytes * 1e9)
                print(f"| {tokens:,} | {layer.rows:,} | {ranks} | {name} | {sent / 2**20:,.1f} | {messages:,} | "
                      f"{attention:,.2f} | {exchange:,.3f} | {100 * exchange / (attention + exchange):.1f} % | "
                      f"{layer.caller(ranks) / 2**20:,.0f} | {layer.ring(ranks) / 2**20:,.1f} |")


def check(paths):
    print("| N | W | layout | sent MiB, model | measured | messages, model | measured | ratio of times, model | measured | of core s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    wrong = 0
    for path in paths:
        shape = link = None
        with open(path, encoding="utf-8") as file:
            lines = file.readlines()
        for line in lines:
            found = re.match(r"an exchange .*: alpha ([\d.]+) us, 1/beta ([\d.]+) GB/s", line)
            if found:
                link = float(found[1]) * 1e-6, float(found[2]) * 1e9
            found = re.match(r"B (\d+), H (\d+), G (\d+), d (\d+), (\w+); L (\d+), p (\d+); (\d+) threads", line)
            if found:
                shape = found
            words = line.split()
            if len(words) != 14 or not words[1].isdigit() or not shape:
                continue
            batch, heads, kv_heads, dim, levels, pool = (int(shape[i]) for i in (1, 2, 3, 4, 6, 7))
            tokens, ranks, name = int(words[1]), int(words[2]), words[3]
            layer = Layer(tokens, heads, dim, levels, pool, tokens // 64, batch, kv_heads=kv_heads)
            sent, messages = layer.by_heads(ranks, one_host=True) if name == "heads" else layer.by_rows(ranks)
            one = float(words[4]) * 1e-3
            model = 1 + (messages * link[0] + sent / link[1]) / one if link else float("nan")
            same = abs(sent / 2**20 - float(words[11])) <= 0.051 and messages == int(words[12])
            wrong += not same
            print(f"| {tokens:,} | {ranks} | {name} | {sent / 2**20:.1f} | {words[11]} | {messages} | {words[12]} | "
                  f"{model:.3f} | {words[6]} | {words[7]} |{'' if same else ' DIFFERS'}")
    return wrong


def check_gpus(paths):
    """T(W) = T(1) / W + alpha exchanges + beta bytes, of one GPU's measured T(1) and the link's measured alpha and beta."""
    print("| N | W | MB sent a rank | one GPU, ms | model, ms | measured | times one GPU, model | measured |")
    print("|---|---|---|---|---|---|---|---|")
    for path in paths:
        ranks = link = None
        one = {}
        with open(path, encoding="utf-8") as file:
            lines = file.readlines()
        for line in lines:
            found = re.match(r"(\d+) of .*, PyTorch", line)
            if found:
                ranks = int(found[1])
            found = re.match(r"link: (\d+) us an exchange, (\d+) GB/s", line)
            if found:
                link = float(found[1]) * 1e-3, float(found[2]) * 1e6
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) < 6 or not re.fullmatch(r"[\d,]+", cells[1]):
                continue
            tokens = int(cells[1].replace(",", ""))
            if cells[2] == "one GPU":
                one[tokens] = float(cells[4])
            if not cells[2].startswith("rows by heads, pieces 1") or tokens not in one:
                continue
            sent, exchanges = Layer(tokens, 8, 128, 3, 4, tokens // 64, element=2).rows_kept(ranks)
            model = one[tokens] / ranks + exchanges * link[0] + sent / link[1]
            print(f"| {tokens:,} | {ranks} | {sent / 1e6:,.0f} | {one[tokens]:.2f} | {model:.2f} | {cells[4]} | "
                  f"{one[tokens] / model:.2f} | {one[tokens] / float(cells[4]):.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs="+", metavar="FILE", help="outputs of lighthouse bench --ranks with topk tokens/64, on one host")
    parser.add_argument("--gpus", nargs="+", metavar="FILE", help="outputs of bench/torch_ranks.py")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rate", type=float, default=75, help="GFLOP/s of attention that a rank reaches (75: a Zen 3 core)")
    parser.add_argument("--alpha", type=float, default=30, help="microseconds a message (30: 10 Gbit/s Ethernet)")
    parser.add_argument("--gigabytes", type=float, default=1.1, help="GB/s of a rank's link (1.1: 10 Gbit/s Ethernet)")
    a = parser.parse_args()
    if a.check:
        raise SystemExit(1 if check(a.check) else 0)
    if a.gpus:
        check_gpus(a.gpus)
    else:
        table(a)


if __name__ == "__main__":
    main()
