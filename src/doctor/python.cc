#include "doctor/python.h"

#include <fmt/format.h>

#include "base/text.h"
#include "engine_api/engine_loader.h"
#include "launch/ask_program.h"

namespace bitctl {
namespace {

using enum Finding::Verdict;

constexpr Duration kLimit = std::chrono::seconds(3);
constexpr const char* kQuestion = R"(
import importlib.metadata, platform
try:
    torch = importlib.metadata.version("torch")
except importlib.metadata.PackageNotFoundError:
    torch = ""
print(platform.python_version(), torch)
)";

}  // namespace

Finding check_python(const std::optional<std::string>& interpreter, std::string& torch) {
  if (!interpreter)
    return {failure, "python", "none in $VIRTUAL_ENV, .venv, $CONDA_PREFIX or PATH",
            "install one, or set run.python"};
  const auto answer = ask_program({*interpreter, "-c", kQuestion}, kLimit);
  if (!answer && answer.error().kind == ErrorKind::timeout)
    return {failure, "python", *interpreter + " does not answer", "is it on a disk that does?"};
  if (!answer) return {failure, "python", answer.error().message, "set run.python"};
  if (!(answer->status == ExitStatus{}))
    return {failure, "python", fmt::format("{} cannot run: {}", *interpreter, answer->line),
            "set run.python"};
  const auto words = split(answer->line, ' ');
  torch = words.size() > 1 ? words[1] : "";
  const std::string version = fmt::format("{} ({})", words[0], *interpreter);
  if (torch.empty())
    return {warn, "python", version + " without torch", "pip install torch there, or set run.python"};
  return {ok, "python", fmt::format("{}, torch {}", version, torch), ""};
}

Finding check_engine(const std::string& module, const std::string& torch) {
  const auto engine = load_engine(module);
  if (!engine)
    return {warn, "engine", "tensors are not checked by libtorch: " + engine.error().message,
            "checkpoints are hashed and verified all the same"};
  const std::string own = (*engine)->torch_version;
  if (!torch.empty() && own != torch)
    return {warn, "engine", fmt::format("of torch {}, the training's is {}", own, torch),
            "build bitctl against the training's torch (scripts/setup)"};
  return {ok, "engine", "tensors are checked by torch " + own, ""};
}

}  // namespace bitctl
