#include "decode/native_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstring>
#include <map>

#include "base/visible_text.h"
#include "decode/tensor_names.h"
#include "model/differences.h"
#include "safetensors/element.h"
#include "safetensors/quantize.h"

namespace bitctl {
namespace {

using Shape = std::vector<int64_t>;

size_t rows_of(const Shape& shape) { return static_cast<size_t>(shape[0]); }

std::string type_and_shape(const TensorInfo& info) {
  return fmt::format("{} [{}]", info.dtype, fmt::join(info.shape, ", "));
}

// Old checkpoints carry what follows from the config: the frequencies of RoPE, GPT-2's causal masks.
bool is_derived(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn.bias") ||
         name.ends_with(".attn.masked_bias");
}

// Rows `from` … of a matrix whose rows lie one after the other; not for ternary ones.
Matrix rows_from(const Matrix& whole, size_t from, size_t count) {
  const size_t bytes = whole.type == Matrix::Type::f32 ? 4 : whole.type == Matrix::Type::int8 ? 1 : 2;
  Matrix part = whole;
  part.rows = count;
  part.data = static_cast<const char*>(whole.data) + from * whole.columns * bytes;
  if (whole.scales != nullptr) part.scales = whole.scales + from;
  return part;
}

// Looks tensors up and takes them off the list; what differs is noted, and an empty one comes back.
class Collector {
 public:
  Collector(const ModelConfig& config, const std::map<std::string_view, ModelTensor>& tensors,
            NativeWeights& to)
      : config_(config), to_(to) {
    for (const auto& [name, tensor] : tensors)
      if (const auto known = text_model_name(config.names, name))
        if (!tensors_.emplace(*known, tensor).second) differences_.add(*known + " is there under two names");
  }

  bool has(const std::string& name) const { return tensors_.contains(name); }

  // Finite or not: what it is worth.
  std::vector<float> vector(const std::string& name, int64_t size) {
    const ModelTensor* tensor = take(name, {size}, false);
    return tensor != nullptr ? floats_of(*tensor) : std::vector<float>();
  }
  Matrix embedding(const std::string& name, const Shape& shape) {
    const ModelTensor* tensor = take(name, shape, false);
    return tensor != nullptr ? in_place(*tensor) : Matrix{};
  }
  NativeNorm norm(const std::string& name, int64_t size) {
    NativeNorm norm{vector(name + ".weight", size), {}};
    if (config_.norms_add_one)
      for (float& weight : norm.weight) weight += 1;
    if (config_.gpt2_blocks) norm.bias = vector(name + ".bias", size);
    return norm;
  }
  NativeLinear linear(const std::string& name, int64_t out, int64_t in, bool bias) {
    NativeLinear linear{matrix(name + ".weight", out, in), {}};
    if (bias) linear.bias = vector(name + ".bias", out);
    return linear;
  }
  // One after the other in the rows of one tensor.
  void fused(const std::string& name, const std::vector<std::pair<NativeLinear*, int64_t>>& parts, int64_t in,
             bool bias) {
    int64_t out = 0;
    for (const auto& [part, rows] : parts) out += rows;
    const NativeLinear whole = linear(name, out, in, bias);
    const bool is_ternary = whole.weight.type == Matrix::Type::ternary;
    size_t row = 0;
    for (const auto& [part, rows] : parts) {
      const auto count = static_cast<size_t>(rows);
      if (is_ternary && count % 4 != 0)
        return differences_.add(
            fmt::format("{}.weight is ternary, and a part of it has {} rows, no multiple of 4", name, rows));
      if (whole.weight.data != nullptr)
        part->weight =
            is_ternary ? packed_anew(whole.weight, row, count) : rows_from(whole.weight, row, count);
      if (!whole.bias.empty())
        part->bias.assign(whole.bias.begin() + static_cast<ptrdiff_t>(row),
                          whole.bias.begin() + static_cast<ptrdiff_t>(row + count));
      row += count;
    }
  }
  // A tied head may have been saved all the same; it must then be what it is tied to.
  void tied_head(const std::string& name, const std::string& embedding) {
    const auto head = tensors_.find(name);
    if (head == tensors_.end()) return;
    const auto same = [&](const ModelTensor& other) {
      return head->second.info->dtype == other.info->dtype && head->second.bytes == other.bytes;
    };
    if (embedding_.info != nullptr && !same(embedding_))
      differences_.add(name + " is not " + embedding + ", though tie_word_embeddings is true");
    tensors_.erase(head);
  }
  void remember_embedding(const std::string& name) {
    const auto at = tensors_.find(name);
    if (at != tensors_.end()) embedding_ = at->second;
  }
  Status finish() {
    for (const auto& [name, tensor] : tensors_)
      if (!is_derived(name)) differences_.add(shortened(visible_text(name), 100) + " is not expected");
    if (!differences_.none()) return fail(ErrorKind::invalid, differences_.text());
    return {};
  }

 private:
  const ModelTensor* take(const std::string& name, const Shape& shape, bool any_dtype) {
    const auto at = tensors_.find(name);
    if (at == tensors_.end()) {
      differences_.add(name + " is missing");
      return nullptr;
    }
    taken_ = at->second;
    tensors_.erase(at);
    const TensorInfo& info = *taken_.info;
    if (!any_dtype && (info.shape != shape || !is_computed(info.dtype))) {
      differences_.add(fmt::format("{} is {} instead of F32, BF16 or F16 [{}]", name, type_and_shape(info),
                                   fmt::join(shape, ", ")));
      return nullptr;
    }
    return &taken_;
  }
  static bool is_computed(std::string_view dtype) {
    return dtype == "F32" || dtype == "BF16" || dtype == "F16";
  }
  static std::vector<float> floats_of(const ModelTensor& tensor) {
    std::vector<float> floats(tensor.bytes.size() * 8 / dtype_bits(tensor.info->dtype));
    read_floats(tensor.info->dtype, tensor.bytes.data(), floats.size(), floats.data());
    return floats;
  }
  static Matrix in_place(const ModelTensor& tensor) {
    const std::string& dtype = tensor.info->dtype;
    Matrix matrix;
    matrix.type = dtype == "F32"    ? Matrix::Type::f32
                  : dtype == "BF16" ? Matrix::Type::bf16
                                    : Matrix::Type::f16;
    matrix.rows = rows_of(tensor.info->shape);
    matrix.columns = static_cast<size_t>(tensor.info->shape[1]);
    matrix.data = tensor.bytes.data();
    return matrix;
  }

  Matrix matrix(const std::string& name, int64_t out, int64_t in) {
    const Shape stored = config_.gpt2_blocks ? Shape{in, out} : Shape{out, in};
    const ModelTensor* found = take(name, stored, true);
    if (found == nullptr) return {};
    const ModelTensor tensor = *found;
    const TensorInfo& info = *tensor.info;
    if (info.dtype == "I8" && info.shape == stored && !config_.gpt2_blocks) return int8(name, tensor);
    const bool is_packed = config_.quantization == Quantization::ternary_multiply ||
                           config_.quantization == Quantization::ternary_divide;
    if (is_packed && info.dtype == "U8" && out % 4 == 0 && info.shape == Shape{out / 4, in})
      return packed(name, tensor);
    const bool is_float = is_computed(info.dtype) && info.shape == stored && !is_packed;
    if (is_float && config_.quantization == Quantization::ternary_at_load && out % 4 == 0)
      return quantized(tensor);
    if (is_float && config_.quantization == Quantization::signs_at_load) return signs(tensor);
    if (is_float && config_.quantization == Quantization::none)
      return config_.gpt2_blocks ? transposed(tensor) : in_place(tensor);
    differences_.add(fmt::format("{} is {} where [{}, {}] {} is expected", name, type_and_shape(info), out,
                                 in, is_packed ? "packed in U8" : "of F32, BF16, F16 or I8"));
    return {};
  }
  Matrix int8(const std::string& name, const ModelTensor& tensor) {
    const ModelTensor* scale = take(name + "_scale", {tensor.info->shape[0], 1}, false);
    if (scale == nullptr) return {};
    to_.scales.push_back(floats_of(*scale));
    return {Matrix::Type::int8, rows_of(tensor.info->shape), static_cast<size_t>(tensor.info->shape[1]),
            tensor.bytes.data(), to_.scales.back().data()};
  }
  Matrix packed(const std::string& name, const ModelTensor& tensor) {
    const ModelTensor* scale = take(name + "_scale", {1}, false);
    if (scale == nullptr) return {};
    std::vector<float> scales = floats_of(*scale);
    if (config_.quantization == Quantization::ternary_divide) scales[0] = 1 / scales[0];
    to_.scales.push_back(std::move(scales));
    return {Matrix::Type::ternary, rows_of(tensor.info->shape) * 4,
            static_cast<size_t>(tensor.info->shape[1]), tensor.bytes.data(), to_.scales.back().data()};
  }
  static float mean_magnitude(const std::vector<float>& values) {
    double sum = 0;
    for (const float value : values) sum += std::fabs(value);
    return static_cast<float>(sum / static_cast<double>(values.size()));
  }
  // As BitNet's straight-through estimator sees its latents: rounded by the mean of their magnitudes.
  Matrix quantized(const ModelTensor& tensor) {
    const std::vector<float> latents = floats_of(tensor);
    const size_t rows = rows_of(tensor.info->shape), columns = latents.size() / rows;
    const float mean = std::max(mean_magnitude(latents), 1e-5F);
    std::vector<char> bytes(latents.size() / 4);
    for (size_t row = 0; row < rows / 4; ++row) {
      const float* four[4];
      for (size_t k = 0; k < 4; ++k) four[k] = &latents[(row + k * rows / 4) * columns];
      pack_ternary(four, columns, 1 / mean, reinterpret_cast<uint8_t*>(&bytes[row * columns]));
    }
    to_.scales.push_back({mean});
    return made({Matrix::Type::ternary, rows, columns, nullptr, to_.scales.back().data()}, std::move(bytes));
  }
  // As Bit-Llama's does, which multiplies floats by -1, 0 and 1 alone and rounds a half away from zero.
  Matrix signs(const ModelTensor& tensor) {
    const std::vector<float> latents = floats_of(tensor);
    const size_t rows = rows_of(tensor.info->shape);
    const float half = mean_magnitude(latents) / 2;
    std::vector<char> bytes(latents.size());
    for (size_t i = 0; half > 0 && i < latents.size(); ++i)
      bytes[i] = static_cast<char>((latents[i] >= half) - (latents[i] <= -half));
    to_.scales.emplace_back(rows, 1.0F);
    return made({Matrix::Type::int8, rows, latents.size() / rows, nullptr, to_.scales.back().data()},
                std::move(bytes));
  }
  // Rows `from` … of a ternary matrix, whose quarters are other rows than those of the whole.
  Matrix packed_anew(const Matrix& whole, size_t from, size_t count) {
    const size_t quarter = count / 4, columns = whole.columns;
    std::vector<char> bytes(quarter * columns);
    for (size_t row = 0; row < count; ++row) {
      const size_t source = from + row, shift = 2 * (source / (whole.rows / 4));
      const auto* in = static_cast<const uint8_t*>(whole.data) + source % (whole.rows / 4) * columns;
      char* to = &bytes[row % quarter * columns];
      for (size_t i = 0; i < columns; ++i)
        to[i] = static_cast<char>(to[i] | (in[i] >> shift & 3) << 2 * (row / quarter));
    }
    return made({Matrix::Type::ternary, count, columns, nullptr, whole.scales}, std::move(bytes));
  }
  Matrix transposed(const ModelTensor& tensor) {
    const Matrix stored = in_place(tensor);
    const size_t element = dtype_bits(tensor.info->dtype) / 8;
    std::vector<char> bytes(tensor.bytes.size());
    for (size_t row = 0; row < stored.rows; ++row)
      for (size_t column = 0; column < stored.columns; ++column)
        std::memcpy(&bytes[(column * stored.rows + row) * element],
                    &tensor.bytes[(row * stored.columns + column) * element], element);
    Matrix matrix = stored;
    std::swap(matrix.rows, matrix.columns);
    return made(matrix, std::move(bytes));
  }
  Matrix made(Matrix matrix, std::vector<char> bytes) {
    to_.made.push_back(std::move(bytes));
    matrix.data = to_.made.back().data();
    return matrix;
  }

  const ModelConfig& config_;
  std::map<std::string, ModelTensor> tensors_;
  NativeWeights& to_;
  ModelTensor taken_;
  ModelTensor embedding_;
  Differences differences_;
};

void collect_layer(Collector& from, const ModelConfig& config, const std::string& prefix,
                   NativeLayer& layer) {
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  layer.attention_norm = from.norm(prefix + "input_layernorm", hidden);
  if (config.post_norms) {
    layer.attention_post_norm = from.norm(prefix + "post_attention_layernorm", hidden);
    layer.mlp_norm = from.norm(prefix + "pre_feedforward_layernorm", hidden);
    layer.mlp_post_norm = from.norm(prefix + "post_feedforward_layernorm", hidden);
  } else {
    layer.mlp_norm = from.norm(prefix + "post_attention_layernorm", hidden);
  }
  if (config.qk_norms) {
    layer.q_norm = from.norm(attention + "q_norm", config.head_dim);
    layer.k_norm = from.norm(attention + "k_norm", config.head_dim);
  }
  if (config.sub_norms) {
    layer.attention_sub_norm = from.norm(attention + "attn_sub_norm", q);
    layer.mlp_sub_norm = from.norm(mlp + "ffn_sub_norm", inner);
  }
  if (config.fused_projections) {
    from.fused(attention + "qkv_proj", {{&layer.q, q}, {&layer.k, kv}, {&layer.v, kv}}, hidden,
               config.qkv_bias);
    from.fused(mlp + "gate_up_proj", {{&layer.gate, inner}, {&layer.up, inner}}, hidden, config.mlp_bias);
  } else {
    layer.q = from.linear(attention + "q_proj", q, hidden, config.qkv_bias);
    layer.k = from.linear(attention + "k_proj", kv, hidden, config.qkv_bias);
    layer.v = from.linear(attention + "v_proj", kv, hidden, config.qkv_bias);
    layer.gate = from.linear(mlp + "gate_proj", inner, hidden, config.mlp_bias);
    layer.up = from.linear(mlp + "up_proj", inner, hidden, config.mlp_bias);
  }
  layer.o = from.linear(attention + "o_proj", hidden, q, config.output_bias);
  layer.down = from.linear(mlp + "down_proj", hidden, inner, config.mlp_bias);
}

void collect_gpt2_layer(Collector& from, const ModelConfig& config, const std::string& prefix,
                        NativeLayer& layer) {
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  layer.attention_norm = from.norm(prefix + "ln_1", hidden);
  layer.mlp_norm = from.norm(prefix + "ln_2", hidden);
  from.fused(prefix + "attn.c_attn", {{&layer.q, hidden}, {&layer.k, hidden}, {&layer.v, hidden}}, hidden,
             true);
  layer.o = from.linear(prefix + "attn.c_proj", hidden, hidden, true);
  layer.up = from.linear(prefix + "mlp.c_fc", inner, hidden, true);
  layer.down = from.linear(prefix + "mlp.c_proj", hidden, inner, true);
}

}  // namespace

Result<NativeWeights> collect_native_weights(const ModelConfig& config, ModelWeights files) {
  auto tensors = tensors_by_name(files);
  if (!tensors) return tl::unexpected(tensors.error());
  NativeWeights weights;
  weights.files = std::move(files);
  Collector from(config, *tensors, weights);
  const bool gpt2 = config.gpt2_blocks;
  // The hub's GPT-2 was saved without its head, which leaves the prefix out.
  const std::string prefix = !gpt2 ? "model." : from.has("wte.weight") ? "" : "transformer.";
  const std::string embedding = prefix + (gpt2 ? "wte.weight" : "embed_tokens.weight");
  const Shape vocabulary{config.vocab_size, config.hidden_size};
  from.remember_embedding(embedding);
  weights.embedding = from.embedding(embedding, vocabulary);
  if (gpt2)
    weights.positions =
        from.embedding(prefix + "wpe.weight", {config.max_position_embeddings, config.hidden_size});
  weights.layers.resize(config.layers.size());
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    if (gpt2)
      collect_gpt2_layer(from, config, fmt::format("{}h.{}.", prefix, i), weights.layers[i]);
    else
      collect_layer(from, config, fmt::format("{}layers.{}.", prefix, i), weights.layers[i]);
  }
  weights.norm = from.norm(prefix + (gpt2 ? "ln_f" : "norm"), config.hidden_size);
  if (config.tie_word_embeddings)
    from.tied_head("lm_head.weight", embedding);
  else
    weights.head = from.embedding("lm_head.weight", vocabulary);
  if (auto finished = from.finish(); !finished) return forward(std::move(finished));
  if (config.tie_word_embeddings) weights.head = weights.embedding;
  weights.dtype = weights.embedding.type == Matrix::Type::f32    ? "F32"
                  : weights.embedding.type == Matrix::Type::bf16 ? "BF16"
                                                                 : "F16";
  return weights;
}

}  // namespace bitctl
