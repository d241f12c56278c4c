// A model folder's config.json and the header of its weights, as the native decoder takes them: shapes
// that lie, tensors that are missing or of other dtypes.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "decode/native_weights.h"

using namespace bitctl;

namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

// Bytes that are numbers of every kind, some of them not finite.
std::string some_data(size_t size) {
  std::string data(size, '\0');
  for (size_t i = 0; i < size; ++i) data[i] = static_cast<char>(i % 251 * 13 ^ i >> 8);
  return data;
}

std::shared_ptr<const TensorFile> as_file(std::string_view header, size_t data_bytes) {
  const Fd fd(::memfd_create("weights", MFD_CLOEXEC));
  const uint64_t length = header.size();
  std::string content(reinterpret_cast<const char*>(&length), sizeof length);
  content += header;
  content += some_data(data_bytes);
  check(::write(fd.get(), content.data(), content.size()) == static_cast<ssize_t>(content.size()));
  const auto file = TensorFile::open("/proc/self/fd/" + std::to_string(fd.get()));
  return file ? *file : nullptr;
}

// What the decoder is handed lies inside the file, or inside memory of its own.
class Ranges {
 public:
  void add(const void* at, size_t bytes) {
    ranges_.emplace_back(reinterpret_cast<uintptr_t>(at), reinterpret_cast<uintptr_t>(at) + bytes);
  }
  void check_holds(const void* at, size_t bytes) const {
    const auto begin = reinterpret_cast<uintptr_t>(at);
    check(std::any_of(ranges_.begin(), ranges_.end(), [&](const auto& range) {
      return range.first <= begin && begin + bytes <= range.second;
    }));
  }

 private:
  std::vector<std::pair<uintptr_t, uintptr_t>> ranges_;
};

void check_matrix(const Matrix& matrix, int64_t rows, int64_t columns, const Ranges& ranges) {
  using Type = Matrix::Type;
  check(matrix.rows == static_cast<size_t>(rows) && matrix.columns == static_cast<size_t>(columns));
  const size_t elements = matrix.rows * matrix.columns;
  const bool is_ternary = matrix.type == Type::ternary;
  check(!is_ternary || matrix.rows % 4 == 0);
  ranges.check_holds(matrix.data, matrix.type == Type::f32    ? elements * 4
                                  : matrix.type == Type::int8 ? elements
                                  : is_ternary                ? elements / 4
                                                              : elements * 2);
  if (is_ternary || matrix.type == Type::int8)
    ranges.check_holds(matrix.scales, (is_ternary ? 1 : matrix.rows) * 4);
}

void check_weights(const ModelConfig& config, const NativeWeights& weights) {
  Ranges ranges;
  for (const auto& file : weights.files)
    for (const TensorInfo& tensor : file->header().tensors)
      ranges.add(file->bytes(tensor).data(), tensor.bytes());
  for (const auto& made : weights.made) ranges.add(made.data(), made.size());
  for (const auto& scales : weights.scales) ranges.add(scales.data(), scales.size() * sizeof(float));
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  check_matrix(weights.embedding, config.vocab_size, hidden, ranges);
  check_matrix(weights.head, config.vocab_size, hidden, ranges);
  check(weights.norm.weight.size() == static_cast<size_t>(hidden));
  check(weights.layers.size() == config.layers.size());
  for (const NativeLayer& layer : weights.layers) {
    check_matrix(layer.q.weight, q, hidden, ranges);
    check_matrix(layer.k.weight, kv, hidden, ranges);
    check_matrix(layer.v.weight, kv, hidden, ranges);
    check_matrix(layer.o.weight, hidden, q, ranges);
    check_matrix(layer.up.weight, inner, hidden, ranges);
    check_matrix(layer.down.weight, hidden, inner, ranges);
    if (!config.gpt2_blocks) check_matrix(layer.gate.weight, inner, hidden, ranges);
    check(layer.attention_norm.weight.size() == static_cast<size_t>(hidden));
    check(layer.q.bias.size() == (config.qkv_bias ? static_cast<size_t>(q) : 0));
  }
}

}  // namespace

// The first two bytes: how long the weights' data is. Then config.json up to a zero byte, then the header.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const size_t border = std::min(text.find('\0'), text.size());
  const auto config = parse_model_config(text.substr(0, border));
  const auto file = as_file(text.substr(std::min(border + 1, text.size())), size_t{data[0]} << 8 | data[1]);
  if (!config || !file) return 0;
  if (const auto weights = collect_native_weights(*config, {file})) check_weights(*config, *weights);
  return 0;
}
