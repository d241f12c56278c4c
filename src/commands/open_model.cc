#include "commands/open_model.h"

#include <algorithm>
#include <optional>

#include "base/install_layout.h"
#include "base/lock.h"
#include "base/read_file.h"
#include "decode/native_decoder.h"
#include "decode/torch_decoder.h"
#include "engine_api/engine_loader.h"
#include "safetensors/tensor_file.h"

namespace bitctl {
namespace {

constexpr uint64_t kPiece = uint64_t{64} << 20;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;

// Under one lock: no part may be deleted after another one was opened.
Result<ModelWeights> open_weights(const ModelFiles& files, const OpenOptions& options) {
  TensorFileOptions file;
  file.map = options.map;
  file.lock_path = run_lock_of(files.weights.front());
  file.lock_limit = options.lock_limit;
  std::optional<FileLock> all;
  if (!file.lock_path.empty()) {
    auto lock = FileLock::acquire(file.lock_path, FileLock::Mode::shared, options.lock_limit);
    if (!lock) return forward(std::move(lock));
    all = std::move(*lock);
  }
  ModelWeights weights;
  for (const std::string& path : files.weights) {
    auto part = TensorFile::open(path, file);
    if (!part) return forward(std::move(part));
    weights.push_back(std::move(*part));
  }
  return weights;
}

// Page faults here, where progress is shown, and not in the first answer.
Status populate(const ModelWeights& weights, const LoadProgress& progress) {
  uint64_t total = 0;
  for (const auto& file : weights) total += file->file_bytes();
  uint64_t done = 0;
  for (const auto& file : weights) {
    for (uint64_t at = 0; at < file->file_bytes(); at += kPiece) {
      const uint64_t piece = std::min(kPiece, file->file_bytes() - at);
      file->populate(at, piece);
      if (!progress(done += piece, total)) return fail(ErrorKind::invalid, "stopped");
    }
  }
  return {};
}

Result<std::unique_ptr<Decoder>> open_native(const std::string& config_json, ModelWeights weights,
                                             const OpenOptions& options, const LoadProgress& progress) {
  if (options.device != "auto" && options.device != "cpu")
    return fail(ErrorKind::invalid, "--device " + options.device + ": the native engine computes on the CPU");
  auto config = parse_model_config(config_json);
  if (!config) return forward(std::move(config));
  if (Status populated = populate(weights, progress); !populated) return forward(std::move(populated));
  return open_native_decoder(std::move(*config), std::move(weights), {.max_context = options.max_context});
}

Result<std::unique_ptr<Decoder>> open_torch(const std::string& config_json, ModelWeights weights,
                                            const OpenOptions& options, const LoadProgress& progress) {
  const auto engine = load_engine(install_layout().engine);
  if (!engine) return tl::unexpected(engine.error());
  if (Status populated = populate(weights, progress); !populated) return forward(std::move(populated));
  return open_torch_decoder(*engine, config_json, std::move(weights),
                            {.max_context = options.max_context, .device = options.device});
}

}  // namespace

Result<std::unique_ptr<Decoder>> open_model(const ModelFiles& files, const OpenOptions& options,
                                            const LoadProgress& progress) {
  auto weights = open_weights(files, options);
  if (!weights) return tl::unexpected(weights.error());
  const auto config = read_small_file(files.folder + "/config.json", kMaxConfigBytes, Links::follow);
  if (!config)
    return fail(config.error().kind,
                config.error().message + "; the model's config.json belongs beside its weights");
  const auto open = options.engine == "torch" ? open_torch : open_native;
  return open(*config, std::move(*weights), options, progress);
}

}  // namespace bitctl
