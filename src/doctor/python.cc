#include "doctor/python.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/text.h"
#include "engine_api/engine_loader.h"
#include "launch/spawn.h"

namespace bitctl {
namespace {

using enum Finding::Verdict;

constexpr int kLimitMs = 3000;
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
  SpawnPlan plan;
  plan.argv = {*interpreter, "-c", kQuestion};
  plan.env = current_environment();
  plan.cwd = std::string("/");
  const Fd said(::memfd_create("bitctl-doctor", MFD_CLOEXEC));
  plan.output = fmt::format("/proc/self/fd/{}", said.get());
  const auto child = spawn(plan);
  if (!child) return {failure, "python", child.error().message, "set run.python"};
  pollfd ended{child->pidfd.get(), POLLIN, 0};
  if (::poll(&ended, 1, kLimitMs) != 1) {
    ::kill(child->pid, SIGKILL);
    ::poll(&ended, 1, 1000);
    static_cast<void>(reap(child->pidfd.get()));
    return {failure, "python", *interpreter + " does not answer", "is it on a disk that does?"};
  }
  const auto status = reap(child->pidfd.get());
  char text[400];
  const ssize_t size = ::pread(said.get(), text, sizeof text, 0);
  const auto lines = split(std::string(text, size > 0 ? static_cast<size_t>(size) : 0), '\n');
  if (!status || !(*status == ExitStatus{}))
    return {failure, "python", fmt::format("{} cannot run: {}", *interpreter, lines[0]), "set run.python"};
  const auto words = split(lines[0], ' ');
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
