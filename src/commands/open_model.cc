#include "commands/open_model.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "base/install_layout.h"
#include "base/lock.h"
#include "base/read_file.h"
#include "base/strict_json.h"
#include "decode/native_decoder.h"
#include "decode/torch_decoder.h"
#include "decode/transformers_decoder.h"
#include "engine_api/engine_loader.h"
#include "safetensors/tensor_file.h"

namespace bitctl {
namespace {

constexpr uint64_t kPiece = uint64_t{64} << 20;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;

constexpr const char* kTransformers = "transformers";
constexpr const char* kIsAdapter = "it is a LoRA adapter on its base";

// What was opened of a model, each file once and as long as the names stood for one model.
struct OpenedModel {
  ModelWeights weights;
  std::string config_json;
  std::unique_ptr<EngineProcess> engine = nullptr;  // for transformers: it has the files, too
  std::string beyond_native = {};  // why the native engine, though the default, does not take it
};

Result<std::optional<FileLock>> lock_of(const std::string& path, Duration limit) {
  if (path.empty()) return std::nullopt;
  auto lock = FileLock::acquire(path, FileLock::Mode::shared, limit);
  if (!lock) return forward(std::move(lock));
  return std::move(*lock);
}

Result<ModelWeights> open_weights(const ModelFiles& files, const TensorFileOptions& options) {
  ModelWeights weights;
  for (const std::string& path : files.weights) {
    auto part = TensorFile::open(path, options);
    if (!part) return forward(std::move(part));
    weights.push_back(std::move(*part));
  }
  return weights;
}

Result<std::unique_ptr<EngineProcess>> start_transformers(const ModelFiles& files) {
  std::error_code gone;  // a folder that was removed has no path; the engine does without
  auto command = worker_command("bitctl.transformers_engine", std::filesystem::current_path(gone).string());
  if (!command) return forward(std::move(command));
  std::vector<std::pair<std::string, std::string>> paths{{"config", files.folder + "/config.json"}};
  for (const std::string& path : files.weights) paths.emplace_back("weights", path);
  if (!files.adapter.empty()) {
    paths.emplace_back("adapter_config", files.adapter + "/adapter_config.json");
    const std::string weights = files.adapter + "/adapter_model.safetensors";
    if (::access(weights.c_str(), F_OK) == 0) paths.emplace_back("adapter_weights", weights);
  }
  std::vector<Fd> opened;
  std::vector<EngineProcess::File> passed;
  for (const auto& [name, path] : paths) {
    opened.emplace_back(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!opened.back()) return fail_errno(path);
    passed.push_back({name, opened.back().get()});
  }
  return EngineProcess::start(std::move(*command), passed);
}

// Why the native engine cannot take this model, and another one may; else empty.
std::string beyond_native(const ModelFiles& files, const std::string& config_json,
                          const OpenOptions& options) {
  if (!files.adapter.empty()) return kIsAdapter;
  if (options.device != "auto" && options.device != "cpu")
    return fmt::format("--device {}: the native engine computes on the CPU", options.device);
  const auto fields = parse_strict_json(config_json);
  if (!fields || !fields->is_object() || get_text(*fields, "model_type").empty()) return "";
  const auto config = parse_model_config(config_json);
  return config ? "" : config.error().message;
}

// Under one lock: no part may be deleted after another one was opened.
Result<OpenedModel> open_files(const ModelFiles& files, const OpenOptions& options) {
  TensorFileOptions file{.lock_path = run_lock_of(files.weights.front()), .lock_limit = options.lock_limit};
  const auto lock = lock_of(file.lock_path, options.lock_limit);
  if (!lock) return tl::unexpected(lock.error());
  const auto config = read_small_file(files.folder + "/config.json", kMaxConfigBytes, Links::follow);
  if (!config)
    return fail(config.error().kind,
                config.error().message + "; the model's config.json belongs beside its weights");
  const std::string reason = options.engine.empty() ? beyond_native(files, *config, options) : "";
  const bool by_transformers = options.engine == kTransformers || !reason.empty();
  if (!files.adapter.empty() && !by_transformers)
    return fail(ErrorKind::invalid, fmt::format("{}, which --engine {} does not take; transformers does",
                                                kIsAdapter, options.engine));
  file.map = options.map || by_transformers;  // which reads them itself
  auto weights = open_weights(files, file);
  if (!weights) return forward(std::move(weights));
  OpenedModel opened{std::move(*weights), *config, nullptr, reason};
  if (!by_transformers) return opened;
  auto engine = start_transformers(files);
  if (!engine) return forward(std::move(engine));
  opened.engine = std::move(*engine);
  return opened;
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
  return open_native_decoder(std::move(*config), std::move(weights),
                             {.max_context = options.max_context, .kv = kv_type(options.kv)});
}

Result<std::unique_ptr<Decoder>> open_torch(const std::string& config_json, ModelWeights weights,
                                            const OpenOptions& options, const LoadProgress& progress) {
  if (!options.kv.empty())
    return fail(ErrorKind::invalid, "--kv " + options.kv + ": only the native engine has a choice");
  const auto engine = load_engine(install_layout().engine);
  if (!engine) return tl::unexpected(engine.error());
  if (Status populated = populate(weights, progress); !populated) return forward(std::move(populated));
  return open_torch_decoder(*engine, config_json, std::move(weights),
                            {.max_context = options.max_context, .device = options.device});
}

// Its imports take seconds: the pages come in meanwhile.
Result<std::unique_ptr<Decoder>> open_transformers(OpenedModel opened, const OpenOptions& options,
                                                   const LoadProgress& progress) {
  if (Status populated = populate(opened.weights, progress); !populated) return forward(std::move(populated));
  const bool mapped = std::all_of(opened.weights.begin(), opened.weights.end(),
                                  [](const auto& file) { return file->mapped(); });
  uint64_t bytes = 0;
  for (const auto& file : opened.weights) bytes += file->file_bytes();
  TransformersOptions how{options.map && mapped, options.device, options.max_context};
  const std::string& reason = opened.beyond_native;
  if (!reason.empty())
    how.remark = fmt::format("⚠ {}: transformers answers, slower than the native engine", reason);
  auto decoder =
      open_transformers_decoder(std::move(opened.engine), how, [&] { return progress(bytes, bytes); });
  if (!decoder && !reason.empty())
    return fail(decoder.error().kind,
                fmt::format("{}; nor can transformers: {}", reason, decoder.error().message));
  return decoder;
}

}  // namespace

Result<std::unique_ptr<Decoder>> open_model(const ModelFiles& files, const OpenOptions& options,
                                            const LoadProgress& progress) {
  auto opened = open_files(files, options);
  if (!opened) return tl::unexpected(opened.error());
  if (opened->engine) return open_transformers(std::move(*opened), options, progress);
  const auto open = options.engine == "torch" ? open_torch : open_native;
  return open(opened->config_json, std::move(opened->weights), options, progress);
}

}  // namespace bitctl
