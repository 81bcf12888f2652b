#!/usr/bin/env bash
# A recorded case in bfloat16 on a CUDA device, held against the exact values within what the format
# allows:
#
#   replay_bf16.sh TMD CASE_FOLDER
#
# Rounding to 8 significant bits errs by at most 2^-9 of a value; over values spread evenly in
# logarithm by e = 2^-9 sqrt(0.541 / 3) = 8.3e-4 in the mean square.  A block rounds 24 times on the
# way from its input to its output (9 for each attention: norm, projection and its weights, normed q
# and k, probabilities, result, output projection and its weights, residual; 6 for the feed-forward
# layers).  Independent errors add in squares: after n blocks e sqrt(24 n).  Gradients meet the
# roundings of the forward pass, of the weights again, and of their own way: e sqrt(3 * 24 n).  The worst
# of a hundred tensors, some of few elements, is allowed three times that.
#
# Counted as a block are also the embeddings and head of each network on the way.  Where a step goes
# through several networks or several times through one, n is the sum:
#     student_n2        backbone 2, flow head 2 + 2, 1; teacher or fake 4, 1
#     student_baseline  student 4, 1; teacher or fake 4, 1
#     critic_n2         as student_n2
#     sample_m2n2       twice: backbone 2, flow head 2 + 2, 1
#     teacher_sample    six times: 2 blocks, 1
# Not bounded are the gradients of a discriminator: an activation within rounding of 0 falls on the
# other side of its leaky ReLU, where the slope is another, and layers of 32 elements feed each one.
# adamw computes in float32.
set -euo pipefail
tmd=$1 folder=$2 name=$(basename "$2")

# case | times that roundings are met | n
bounds='dit 3 3
dit_head_dim_128 3 2
dit_skip_layer 3 4
stage1_concat 3 5
stage1_gated 3 5
student_baseline 3 10
student_n2 3 12
critic_n2 3 12
sample_m2n2 1 14
teacher_sample 1 18'
bound=$(awk -v name="$name" '$1 == name { bound = 3 * 8.3e-4 * sqrt(24 * $2 * $3) }
                             END { print bound ? bound : 1e-4 }' <<<"$bounds")

"$tmd" replay "$folder" --device cuda --precision bf16 --tol 1e9 --worst 1000000 |
  awk -v name="$name" -v bound="$bound" '
    $2 ~ /^(out|grad)\./ && $2 !~ /^grad\.discriminator\./ {
      n++
      if (!($1 + 0 <= worst)) { worst = $1 + 0; tensor = $2 }
      if ($1 !~ /^[0-9.e+-]+$/) { worst = 1e30; tensor = $2 } # NaN
    }
    END {
      printf "%-18s %3d tensors, worst %.2e, bound %.2e  %s\n", name, n, worst, bound, tensor
      exit !(n > 0 && worst <= bound)
    }'
