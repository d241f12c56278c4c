#include "commands/open_model.h"

#include "base/install_layout.h"
#include "base/read_file.h"
#include "decode/torch_decoder.h"
#include "engine_api/engine_loader.h"
#include "safetensors/tensor_file.h"

namespace bitctl {
namespace {

constexpr uint64_t kPiece = uint64_t{64} << 20;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;

}  // namespace

Result<std::unique_ptr<Decoder>> open_model(const ModelFiles& files, const OpenOptions& options,
                                            const LoadProgress& progress) {
  TensorFileOptions file;
  file.map = options.map;
  file.lock_path = run_lock_of(files.weights);
  file.lock_limit = options.lock_limit;
  const auto weights = TensorFile::open(files.weights, file);
  if (!weights) return tl::unexpected(weights.error());
  const auto config = read_small_file(files.folder + "/config.json", kMaxConfigBytes, Links::follow);
  if (!config)
    return fail(config.error().kind,
                config.error().message + "; the model's config.json belongs beside its weights");
  const auto engine = load_engine(install_layout().engine);
  if (!engine) return tl::unexpected(engine.error());
  // Page faults here, where progress is shown, and not in the first answer.
  const uint64_t total = (*weights)->file_bytes();
  for (uint64_t at = 0; at < total; at += kPiece) {
    (*weights)->populate(at, std::min(kPiece, total - at));
    progress(std::min(at + kPiece, total), total);
  }
  TorchDecoderOptions decoder;
  decoder.device = options.device;
  decoder.max_context = options.max_context;
  return open_torch_decoder(*engine, *config, *weights, decoder);
}

}  // namespace bitctl
