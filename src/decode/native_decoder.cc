#include "decode/native_decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <thread>

#include "decode/native_kv_cache.h"
#include "decode/native_layers.h"
#include "decode/native_weights.h"
#include "kernels/attention.h"
#include "kernels/isa.h"
#include "kernels/matmul.h"
#include "kernels/pool.h"
#include "safetensors/element.h"

namespace bitctl {
namespace {

constexpr size_t kPiece = 128;      // prompt positions at a time: bounds the memory of activations
constexpr size_t kTokensATime = 4;  // that one thread takes

// Cosines and sines of a piece's positions, [positions, pairs].
struct Rotation {
  std::vector<float> frequencies;
  float factor = 1;
  std::vector<float> cosines, sines;

  size_t pairs() const { return frequencies.size(); }
  void turn_to(size_t position, size_t count) {
    for (size_t t = 0; t < count; ++t)
      for (size_t i = 0; i < pairs(); ++i) {
        const float angle = static_cast<float>(position + t) * frequencies[i];
        cosines[t * pairs() + i] = std::cos(angle) * factor;
        sines[t * pairs() + i] = std::sin(angle) * factor;
      }
  }
};

class NativeDecoder : public Decoder {
 public:
  NativeDecoder(ModelConfig config, NativeWeights weights, NativeKvCache cache, int threads)
      : config_(std::move(config)),
        weights_(std::move(weights)),
        cache_(std::move(cache)),
        info_{"native", "cpu", "float32", config_.vocab_size, static_cast<int64_t>(cache_.shape().positions)},
        piece_(std::min(kPiece, cache_.shape().positions)),
        pool_(threads) {
    const auto floats = [&](int64_t each) { return std::vector<float>(piece_ * static_cast<size_t>(each)); };
    const int64_t q = config_.heads * config_.head_dim, kv = config_.kv_heads * config_.head_dim;
    x_ = floats(config_.hidden_size);
    normed_ = floats(config_.hidden_size);
    queries_ = floats(q);
    keys_ = floats(kv);
    values_ = floats(kv);
    mixed_ = floats(q);
    gate_ = floats(config_.intermediate_size);
    up_ = floats(config_.intermediate_size);
    if (config_.scales_embedding)
      embedding_scale_ = rounded(std::sqrt(static_cast<float>(config_.hidden_size)));
    set_frequencies(false);
  }

  const DecoderInfo& info() const override { return info_; }

  Status forward(std::span<const int32_t> ids, size_t position, std::span<float> logits) override {
    if (auto checked = check(ids, position, logits.size()); !checked) return checked;
    ids_.resize(position);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    // Keys that were turned by LongRoPE's other frequencies are worth nothing: all is run again.
    const bool is_long = config_.rope.type == RopeConfig::Type::longrope &&
                         static_cast<double>(ids_.size()) > config_.rope.original_max_position_embeddings;
    if (is_long != is_long_) {
      set_frequencies(is_long);
      position = 0;
    }
    size_t count = 0;
    for (; position < ids_.size(); position += count) {
      count = std::min(piece_, ids_.size() - position);
      run(std::span(ids_).subspan(position, count), position);
    }
    head(count - 1, logits);
    return {};
  }

 private:
  Status check(std::span<const int32_t> ids, size_t position, size_t room) const {
    const auto refuse = [](const std::string& reason) { return fail(ErrorKind::invalid, reason); };
    if (room != static_cast<size_t>(info_.vocab_size))
      return refuse(fmt::format("room for {} logits, the vocabulary has {}", room, info_.vocab_size));
    if (ids.empty()) return refuse("no token ids");
    if (position > ids_.size())
      return refuse(
          fmt::format("position {} leaves a gap: the cache holds {} positions", position, ids_.size()));
    if (ids.size() > cache_.shape().positions - position)
      return refuse(fmt::format("the context is full: {} tokens at position {} of {}", ids.size(), position,
                                cache_.shape().positions));
    for (const int32_t id : ids)
      if (id < 0 || id >= info_.vocab_size)
        return refuse(fmt::format("token id {} is outside the vocabulary of {}", id, info_.vocab_size));
    return {};
  }

  // To the embedding's dtype, in which the trainer multiplied.
  float rounded(float value) const {
    if (weights_.dtype == "BF16") return float_of_bf16(bf16_of_float(value));
    return weights_.dtype == "F16" ? float_of_f16(f16_of_float(value)) : value;
  }

  void set_frequencies(bool is_long) {
    is_long_ = is_long;
    for (auto [rotation, rope] :
         {std::pair(&global_, &config_.rope), std::pair(&local_, &config_.local_rope)}) {
      if (config_.gpt2_blocks) continue;
      rotation->frequencies = rope_frequencies(*rope, config_.head_dim, is_long);
      rotation->factor = static_cast<float>(rope->attention_factor);
      rotation->cosines.resize(piece_ * rotation->pairs());
      rotation->sines.resize(piece_ * rotation->pairs());
    }
  }

  // work(token) for each of them.
  template <typename Work>
  void for_each_token(size_t tokens, Work&& work) {
    if (tokens == 1) return work(size_t{0});
    pool_.run(tokens, kTokensATime, [&](size_t begin, size_t end) {
      for (size_t t = begin; t < end; ++t) work(t);
    });
  }

  std::span<float> row(std::vector<float>& of, size_t token) const {
    const size_t size = of.size() / piece_;
    return {&of[token * size], size};
  }

  void multiply(std::initializer_list<std::pair<const NativeLinear*, std::vector<float>*>> products,
                const std::vector<float>& x, size_t tokens) {
    Product list[3];
    size_t count = 0;
    for (const auto& [linear, to] : products) list[count++] = {linear->weight, to->data()};
    matmul(pool_, std::span(list, count), x.data(), tokens);
    for (const auto& [linear, to] : products)
      for (size_t t = 0; !linear->bias.empty() && t < tokens; ++t)
        for (size_t i = 0; i < linear->bias.size(); ++i) row(*to, t)[i] += linear->bias[i];
  }

  void normalize_rows(std::vector<float>& from, const NativeNorm& norm, std::vector<float>& to,
                      size_t tokens) {
    for_each_token(tokens, [&](size_t t) {
      normalize(row(from, t), norm, static_cast<float>(config_.norm_eps), row(to, t).data());
    });
  }

  // x += what is in normed_, after the norm that Gemma has there.
  void add_to_x(const NativeNorm& norm, size_t tokens) {
    if (!norm.weight.empty()) normalize_rows(normed_, norm, normed_, tokens);
    for (size_t i = 0; i < tokens * row(x_, 0).size(); ++i) x_[i] += normed_[i];
  }

  void run(std::span<const int32_t> ids, size_t position) {
    const size_t tokens = ids.size();
    for (size_t t = 0; t < tokens; ++t) embed(static_cast<size_t>(ids[t]), position + t, row(x_, t));
    global_.turn_to(position, tokens);
    local_.turn_to(position, tokens);
    for (size_t i = 0; i < weights_.layers.size(); ++i) {
      attention(i, position, tokens);
      mlp(weights_.layers[i], tokens);
    }
  }

  void embed(size_t id, size_t position, std::span<float> to) {
    read_row(weights_.embedding, id, to.data());
    for (float& value : to) value *= embedding_scale_;
    if (weights_.positions.data == nullptr) return;
    read_row(weights_.positions, position, normed_.data());
    for (size_t i = 0; i < to.size(); ++i) to[i] += normed_[i];
  }

  void attention(size_t index, size_t position, size_t tokens) {
    const NativeLayer& layer = weights_.layers[index];
    normalize_rows(x_, layer.attention_norm, normed_, tokens);
    multiply({{&layer.q, &queries_}, {&layer.k, &keys_}, {&layer.v, &values_}}, normed_, tokens);
    for_each_token(tokens, [&](size_t t) {
      place(row(queries_, t), layer.q_norm, config_.layers[index], t);
      place(row(keys_, t), layer.k_norm, config_.layers[index], t);
      cache_.put(index, position + t, row(keys_, t).data(), row(values_, t).data());
    });
    tokens == 1 ? mix_one(index, position) : mix_many(index, position, tokens);
    if (!layer.attention_sub_norm.weight.empty())
      normalize_rows(mixed_, layer.attention_sub_norm, mixed_, tokens);
    multiply({{&layer.o, &normed_}}, mixed_, tokens);
    add_to_x(layer.attention_post_norm, tokens);
  }

  // Norm and RoPE of every head of one token.
  void place(std::span<float> heads, const NativeNorm& norm, const LayerConfig& layer, size_t token) {
    const auto head_dim = static_cast<size_t>(config_.head_dim);
    Rotation& rotation = layer.local ? local_ : global_;
    const size_t pairs = rotation.pairs();
    for (size_t at = 0; at < heads.size(); at += head_dim) {
      const auto head = heads.subspan(at, head_dim);
      if (!norm.weight.empty()) normalize(head, norm, static_cast<float>(config_.norm_eps), head.data());
      if (layer.rotates)
        rotate(head.data(), {&rotation.cosines[token * pairs], pairs},
               {&rotation.sines[token * pairs], pairs});
    }
  }

  // What the token at `position` sees of one head.
  AttentionRows rows_at(size_t index, size_t position, size_t kv_head) const {
    const auto window = static_cast<size_t>(config_.layers[index].window);
    AttentionRows rows = cache_.rows(index, kv_head);
    rows.end = position + 1;
    rows.begin = window != 0 && rows.end > window ? rows.end - window : 0;
    return rows;
  }

  // The heads of queries over one head of keys and values, and what they have in a row.
  size_t group() const { return static_cast<size_t>(config_.heads / config_.kv_heads); }
  size_t group_size() const { return group() * static_cast<size_t>(config_.head_dim); }

  void mix_many(size_t index, size_t position, size_t tokens) {
    const auto kv_heads = static_cast<size_t>(config_.kv_heads);
    pool_.run(tokens * kv_heads, 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        const size_t token = i / kv_heads, kv_head = i % kv_heads, first = kv_head * group_size();
        attend(rows_at(index, position + token, kv_head), &row(queries_, token)[first], group(),
               static_cast<float>(config_.attention_scale), static_cast<float>(config_.attention_softcap),
               &row(mixed_, token)[first]);
      }
    });
  }

  // The same bits in pieces of positions: one token's heads may be fewer than the threads.
  void mix_one(size_t index, size_t position) {
    const auto kv_heads = static_cast<size_t>(config_.kv_heads);
    const auto head_dim = static_cast<size_t>(config_.head_dim);
    const size_t parts = attention_parts(rows_at(index, position, 0));
    states_.resize(std::max(states_.size(), kv_heads * parts * group()));
    parts_.resize(std::max(parts_.size(), kv_heads * parts * group_size()));
    pool_.run(kv_heads * parts, 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i)
        attend_part(rows_at(index, position, i / parts), i % parts, &queries_[i / parts * group_size()],
                    group(), static_cast<float>(config_.attention_scale),
                    static_cast<float>(config_.attention_softcap), &states_[i * group()],
                    &parts_[i * group_size()]);
    });
    for (size_t kv_head = 0; kv_head < kv_heads; ++kv_head)
      join_parts(parts, group(), head_dim, &states_[kv_head * parts * group()],
                 &parts_[kv_head * parts * group_size()], &mixed_[kv_head * group_size()]);
  }

  void mlp(const NativeLayer& layer, size_t tokens) {
    normalize_rows(x_, layer.mlp_norm, normed_, tokens);
    const bool gated = layer.gate.weight.data != nullptr;
    if (gated)
      multiply({{&layer.gate, &gate_}, {&layer.up, &up_}}, normed_, tokens);
    else
      multiply({{&layer.up, &gate_}}, normed_, tokens);
    for_each_token(tokens, [&](size_t t) {
      activate(config_.activation, row(gate_, t), gated ? row(up_, t).data() : nullptr);
    });
    if (!layer.mlp_sub_norm.weight.empty()) normalize_rows(gate_, layer.mlp_sub_norm, gate_, tokens);
    multiply({{&layer.down, &normed_}}, gate_, tokens);
    add_to_x(layer.mlp_post_norm, tokens);
  }

  // Of one token of the last piece.
  void head(size_t token, std::span<float> logits) {
    normalize(row(x_, token), weights_.norm, static_cast<float>(config_.norm_eps), normed_.data());
    const Product product{weights_.head, logits.data()};
    matmul(pool_, {&product, 1}, normed_.data(), 1);
    const auto cap = static_cast<float>(config_.logit_softcap);
    if (cap != 0)
      for (float& logit : logits) logit = cap * std::tanh(logit / cap);
  }

  const ModelConfig config_;
  const NativeWeights weights_;
  NativeKvCache cache_;
  const DecoderInfo info_;
  const size_t piece_;
  Pool pool_;
  std::vector<int32_t> ids_;  // of the positions that the cache holds
  Rotation global_, local_;
  bool is_long_ = false;
  float embedding_scale_ = 1;
  // Activations of one piece, a row a token.
  std::vector<float> x_, normed_, queries_, keys_, values_, mixed_, gate_, up_;
  // Of one token's attention: [kv_heads, parts, group], and as many rows of head_dim.
  std::vector<AttentionState> states_;
  std::vector<float> parts_;
};

}  // namespace

std::optional<KvType> kv_type(std::string_view name) {
  if (name == "float32") return KvType::f32;
  if (name == "bf16") return KvType::bf16;
  if (name == "int8") return KvType::int8;
  return std::nullopt;
}

Result<std::unique_ptr<Decoder>> open_native_decoder(ModelConfig config, ModelWeights weights,
                                                     const NativeDecoderOptions& options) {
  const int64_t context = options.max_context != 0 ? options.max_context : config.max_position_embeddings;
  if (context < 1 || context > config.max_position_embeddings)
    return fail(ErrorKind::invalid, fmt::format("max_context {} is not within the model's {}", context,
                                                config.max_position_embeddings));
  if (const auto isa = isa_of_environment(); !isa) return tl::unexpected(isa.error());
  auto collected = collect_native_weights(config, std::move(weights));
  if (!collected) return tl::unexpected(collected.error());
  auto cache = NativeKvCache::reserve(
      {.layers = config.layers.size(),
       .kv_heads = static_cast<size_t>(config.kv_heads),
       .positions = static_cast<size_t>(context),
       .head_dim = static_cast<size_t>(config.head_dim),
       .type = options.kv.value_or(collected->dtype == "BF16" ? KvType::bf16 : KvType::f32)});
  if (!cache) return tl::unexpected(cache.error());
  const int threads = options.threads != 0
                          ? options.threads
                          : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  return std::make_unique<NativeDecoder>(std::move(config), std::move(*collected), std::move(*cache),
                                         threads);
}

}  // namespace bitctl
