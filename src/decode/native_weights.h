// A model's tensors as the native decoder uses them: matrices where their files have them, vectors as floats.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "decode/model_weights.h"
#include "kernels/matrix.h"
#include "model/model_config.h"

namespace bitctl {

struct NativeLinear {
  Matrix weight;            // [out, in]
  std::vector<float> bias;  // empty: none
};

struct NativeNorm {
  std::vector<float> weight;  // Gemma's 1 has been added; empty: there is no such norm
  std::vector<float> bias;    // GPT-2's
};

struct NativeLayer {
  NativeNorm attention_norm, mlp_norm;            // of what goes in
  NativeNorm attention_sub_norm, mlp_sub_norm;    // before the last product
  NativeNorm attention_post_norm, mlp_post_norm;  // of what comes out
  NativeNorm q_norm, k_norm;                      // of each head
  NativeLinear q, k, v, o;
  NativeLinear gate, up, down;  // no gate in GPT-2
};

struct NativeWeights {
  Matrix embedding;
  Matrix positions;  // GPT-2's
  std::vector<NativeLayer> layers;
  NativeNorm norm;
  Matrix head;
  std::string dtype;  // of the embedding: "F32", "BF16" or "F16"

  ModelWeights files;  // the matrices point into these, or into what had to be made:
  std::deque<std::vector<float>> scales;
  std::deque<std::vector<char>> made;
};

// Names, shapes and dtypes are those that `config` asks for. Error::invalid names the tensors that are not,
// the first few of them. Reads vectors and scales; of the matrices only those that must be made: float
// latents to be quantized, GPT-2's transposed ones.
Result<NativeWeights> collect_native_weights(const ModelConfig& config, ModelWeights files);

}  // namespace bitctl
