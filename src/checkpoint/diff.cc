#include "checkpoint/diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "base/lock.h"
#include "base/replace_file.h"
#include "base/visible_text.h"
#include "checkpoint/digest.h"
#include "safetensors/element.h"
#include "safetensors/tensor_stream.h"

namespace bitctl {
namespace {

constexpr size_t kPieceElements = size_t{1} << 18;
constexpr Duration kLockLimit = std::chrono::seconds(30);

struct OpenStep {
  Manifest manifest;
  std::map<std::string, TensorStream> streams;  // by file
};

Result<OpenStep> open_step(const StepFolder& folder) {
  auto manifest = inspect_step(folder);
  if (!manifest) return forward(std::move(manifest));
  OpenStep step{std::move(*manifest), {}};
  for (const ManifestFile& file : step.manifest.files) {
    const std::string path = folder.path + "/" + file.name;
    auto stream = TensorStream::open(path);
    if (!stream) return forward(std::move(stream));
    if (auto status = check_header(stream->head(), file, path); !status) return forward(std::move(status));
    step.streams.emplace(file.name, std::move(*stream));
  }
  return step;
}

// Once open, the descriptors keep the files.
Result<OpenStep> open_under_lock(const StepFolder& folder) {
  const auto lock = FileLock::acquire(folder_of(folder.path) + "/.lock", FileLock::Mode::shared, kLockLimit);
  if (!lock && lock.error().kind != ErrorKind::not_found) return tl::unexpected(lock.error());
  return open_step(folder);
}

// One tensor of a step, read once from its first byte to its last.
struct Source {
  const TensorStream* stream;
  const ManifestTensor* tensor;
  Digest digest{};
  std::string bytes{};
  std::vector<double> values{};

  // Of packed formats, whose elements are smaller than that, the byte.
  size_t element_bytes() const { return std::max(1u, dtype_bits(tensor->info.dtype) / 8); }
  uint64_t elements() const { return tensor->info.bytes() / element_bytes(); }

  Status read(uint64_t first, size_t count) {
    bytes.resize(count * element_bytes());
    if (auto read = stream->read(tensor->info.begin + first * element_bytes(), bytes.size(), bytes.data());
        !read)
      return read;
    digest.update(bytes.data(), bytes.size());
    return {};
  }
  bool to_values(size_t count) {
    values.resize(count);
    return read_doubles(tensor->info.dtype, bytes.data(), count, values.data());
  }
  void count_into(TensorSide& side) const {
    for (const double value : values) {
      side.nan += std::isnan(value);
      side.infinite += std::isinf(value);
    }
  }
  Status check() const {
    if (digest.hex() == tensor->xxh3) return {};
    return fail(ErrorKind::damaged, fmt::format("{}: tensor {} does not match its digest", stream->path(),
                                                visible_text(tensor->info.name)));
  }
};

uint64_t changed_elements(const Source& a, const Source& b, size_t count) {
  const size_t width = a.element_bytes();
  if (a.bytes == b.bytes) return 0;
  uint64_t changed = 0;
  for (size_t i = 0; i < count; ++i)
    changed += std::memcmp(a.bytes.data() + i * width, b.bytes.data() + i * width, width) != 0;
  return changed;
}

// A double does not hold every 64-bit integer; the difference of two close ones must not vanish in it.
void exact_differences(const Source& a, const Source& b, std::vector<double>& differences) {
  const bool is_signed = a.tensor->info.dtype == "I64";
  for (size_t i = 0; i < differences.size(); ++i) {
    int64_t x = 0, y = 0;
    std::memcpy(&x, a.bytes.data() + i * 8, 8);
    std::memcpy(&y, b.bytes.data() + i * 8, 8);
    const auto wide = [&](int64_t v) { return is_signed ? __int128{v} : __int128{static_cast<uint64_t>(v)}; };
    differences[i] = static_cast<double>(wide(y) - wide(x));
  }
}

struct Sums {
  double squares = 0;
  double squares_of_a = 0;
  double max = 0;
};

void add(Sums& sums, const Source& a, const Source& b, size_t count) {
  std::vector<double> differences(count);
  const std::string& dtype = a.tensor->info.dtype;
  if (dtype == b.tensor->info.dtype && (dtype == "I64" || dtype == "U64"))
    exact_differences(a, b, differences);
  else
    for (size_t i = 0; i < count; ++i) differences[i] = b.values[i] - a.values[i];
  // A sum for the piece first: fewer roundings than one sum over billions.
  Sums piece;
  for (size_t i = 0; i < count; ++i) {
    if (!std::isfinite(a.values[i]) || !std::isfinite(b.values[i])) continue;
    piece.squares += differences[i] * differences[i];
    piece.squares_of_a += a.values[i] * a.values[i];
    piece.max = std::max(piece.max, std::abs(differences[i]));
  }
  sums.squares += piece.squares;
  sums.squares_of_a += piece.squares_of_a;
  sums.max = std::max(sums.max, piece.max);
}

TensorSide side_of(const ManifestTensor& tensor) { return {tensor.info.dtype, tensor.info.shape}; }

// Reads one side alone, for its NaNs.
Status look_at(Source source, TensorSide& side) {
  const uint64_t elements = source.elements();
  for (uint64_t first = 0; first < elements; first += kPieceElements) {
    const auto count = static_cast<size_t>(std::min<uint64_t>(kPieceElements, elements - first));
    if (auto read = source.read(first, count); !read) return read;
    if (source.to_values(count)) source.count_into(side);
  }
  return elements == 0 ? Status() : source.check();
}

Status compare(Source a, Source b, TensorChange& change) {
  const bool same_dtype = change.a->dtype == change.b->dtype;
  Sums sums;
  uint64_t changed = 0;
  bool numbers = true;
  const uint64_t elements = a.elements();
  for (uint64_t first = 0; first < elements; first += kPieceElements) {
    const auto count = static_cast<size_t>(std::min<uint64_t>(kPieceElements, elements - first));
    if (auto read = a.read(first, count); !read) return read;
    if (auto read = b.read(first, count); !read) return read;
    if (same_dtype) changed += changed_elements(a, b, count);
    numbers = a.to_values(count) && b.to_values(count);
    if (!numbers) continue;
    a.count_into(*change.a);
    b.count_into(*change.b);
    add(sums, a, b, count);
  }
  if (elements > 0)
    for (const Source* source : {&a, &b})
      if (auto good = source->check(); !good) return good;
  if (same_dtype) change.changed = changed;
  change.same = same_dtype && changed == 0;
  if (numbers) change.delta = TensorDelta{std::sqrt(sums.squares), sums.max, std::sqrt(sums.squares_of_a)};
  return {};
}

// A tensor of a step and the file that holds it; null where there is none.
struct Place {
  const ManifestFile* file = nullptr;
  const ManifestTensor* tensor = nullptr;
};

// One that was frozen in one of two steps lies in another file of the model there.
Place place_of(const OpenStep& step, const std::string& file, const std::string& name) {
  for (const ManifestFile& found : step.manifest.files) {
    if (found.name != file && !(is_model_file(found.name) && is_model_file(file))) continue;
    // The header's index is sorted; the manifest's tensors stand in the same order as the header's.
    const TensorHeader& header = step.streams.at(found.name).header();
    if (const TensorInfo* info = header.find(name))
      return {&found, &found.tensors[static_cast<size_t>(info - header.tensors.data())]};
  }
  return {};
}

Result<TensorChange> change_of(const OpenStep& a, const OpenStep& b, const std::string& file,
                               const std::string& name) {
  TensorChange change{file, name};
  const Place in_a = place_of(a, file, name);
  const Place in_b = place_of(b, file, name);
  const auto source = [](const OpenStep& step, const Place& place) {
    return Source{&step.streams.at(place.file->name), place.tensor};
  };
  const auto may_hold_nan = [&](const OpenStep& step, const Place& place) {
    const auto& named = step.manifest.non_finite;
    return std::find(named.begin(), named.end(), place.file->name + ":" + name) != named.end();
  };
  if (in_a.tensor != nullptr) change.a = side_of(*in_a.tensor);
  if (in_b.tensor != nullptr) change.b = side_of(*in_b.tensor);
  if (in_a.tensor == nullptr || in_b.tensor == nullptr || change.a->shape != change.b->shape) {
    for (const auto& [step, place, side] :
         {std::tuple(&a, &in_a, &change.a), std::tuple(&b, &in_b, &change.b)})
      if (place->tensor != nullptr && may_hold_nan(*step, *place))
        if (auto status = look_at(source(*step, *place), **side); !status) return forward(std::move(status));
    return change;
  }
  if (in_a.tensor->xxh3 == in_b.tensor->xxh3 && change.a->dtype == change.b->dtype &&
      !may_hold_nan(a, in_a) && !may_hold_nan(b, in_b)) {
    change.same = true;
    change.changed = 0;
    change.delta = TensorDelta{};
    return change;
  }
  if (auto status = compare(source(a, in_a), source(b, in_b), change); !status)
    return forward(std::move(status));
  return change;
}

}  // namespace

Status diff_steps(const StepFolder& a, const StepFolder& b,
                  const std::function<void(const TensorChange&)>& tell) {
  const auto step_a = open_under_lock(a);
  if (!step_a) return tl::unexpected(step_a.error());
  const auto step_b = open_under_lock(b);
  if (!step_b) return tl::unexpected(step_b.error());
  for (const auto& [first, second] : {std::pair(&*step_a, &*step_b), std::pair(&*step_b, &*step_a)})
    for (const ManifestFile& file : first->manifest.files)
      for (const ManifestTensor& tensor : file.tensors) {
        const bool told =
            first == &*step_b && place_of(*second, file.name, tensor.info.name).tensor != nullptr;
        if (told) continue;
        const auto change = change_of(*step_a, *step_b, file.name, tensor.info.name);
        if (!change) return tl::unexpected(change.error());
        tell(*change);
      }
  return {};
}

}  // namespace bitctl
