// `bitctl chat` with a decoder that computes nothing and a load that can be held: what the black-box tests
// talk to.
//   FAKE_GATE=PATH       opening waits until the file is there
//   FAKE_ENDLESS=1       answers go on until they are stopped
//   FAKE_TOKEN_MS=N      each token takes so long
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>

#include "base/exit_code.h"
#include "base/log.h"
#include "commands/chat.h"
#include "unit/chat/fake_decoder.h"

namespace bitctl {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

Result<std::unique_ptr<Decoder>> open_fake(const ModelFiles&, const OpenOptions& options,
                                           const LoadProgress& progress) {
  const std::string gate = environment("FAKE_GATE");
  while (progress(21, 47) && !gate.empty() && ::access(gate.c_str(), F_OK) != 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  FakeDecoderSettings settings;
  settings.endless = !environment("FAKE_ENDLESS").empty();
  settings.per_token = std::chrono::milliseconds(std::atoi(environment("FAKE_TOKEN_MS").c_str()));
  settings.fails_at = "boom";
  settings.dies_at = "die now";
  if (options.max_context > 0) settings.max_context = options.max_context;
  return std::make_unique<FakeDecoder>(settings);
}

}  // namespace
}  // namespace bitctl

int main(int argc, char** argv) {
  using namespace bitctl;
  CLI::App app("bitctl chat, with a fake decoder");
  app.require_subcommand(1);
  Action action;
  add_chat_command(app, action, open_fake);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kOk : kUsage;
  }
  log_to_stderr();
  return action();
}
