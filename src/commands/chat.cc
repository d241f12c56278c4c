#include "commands/chat.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "base/text.h"
#include "chat/chat.h"
#include "commands/open_model.h"
#include "engine_api/engine_loader.h"

namespace bitctl {
namespace {

// As early as our own code runs; only the dynamic linker came before.
const Mono g_started = std::chrono::steady_clock::now();

std::string check_duration(const std::string& text) {
  return parse_duration(text) ? "" : "not a duration such as 30s or 5m: " + text;
}

// CLI11's own Range takes NaN.
CLI::Validator number_from(double low, double high) {
  return {[low, high](const std::string& text) {
            double value = 0;
            const bool fits = CLI::detail::lexical_cast(text, value) && value >= low && value <= high;
            return fits ? std::string() : fmt::format("not a number from {:g} to {:g}: {}", low, high, text);
          },
          fmt::format("FLOAT in [{:g} - {:g}]", low, high)};
}

}  // namespace

void add_chat_command(CLI::App& app, Action& action, ModelOpener opener) {
  auto options = std::make_shared<ChatOptions>();
  auto lock_timeout = std::make_shared<std::string>("30s");
  auto no_mmap = std::make_shared<bool>(false);
  CLI::App* chat = app.add_subcommand("chat", "Talk to a model");
  chat->add_option(
      "path", options->model.path,
      "A .safetensors file, the folder of a model, a run, or a name in the Hugging Face cache; the "
      "newest finished run where left out");
  chat->add_option("--step", options->model.step, "Of a run: the checkpoint of this step");
  chat->add_option("-p,--prompt", options->prompt,
                   "One answer to this (and to what standard input holds), then the end");
  chat->add_option("--system", options->system, "System prompt");
  chat->add_option("--temperature", options->temperature,
                   "0: always the most likely token; where left out: the model's own, else 0")
      ->check(number_from(0, 100));
  chat->add_option("--top-p", options->top_p,
                   "Choose among the likeliest tokens that have this probability together; samples, at "
                   "temperature 1 where none is known")
      ->check(number_from(0, 1));
  chat->add_option("--max-new-tokens", options->max_new_tokens, "Longest answer")->check(CLI::PositiveNumber);
  chat->add_option("--seed", options->seed, "The same seed gives the same answers; samples, as --top-p does");
  chat->add_flag("--no-wait", options->no_wait,
                 "A prompt fails with model_not_ready instead of waiting for the model");
  chat->add_flag("--offline", options->offline, "Use nothing but what is on this machine");
  chat->add_option("--device", options->open.device, "auto, cpu or cuda:N")->capture_default_str();
  chat->add_option(
          "--max-context", options->open.max_context,
          "Longest conversation, in tokens; its cache takes memory. The model's own limit where left out")
      ->check(CLI::PositiveNumber);
  chat->add_flag("--no-mmap", *no_mmap, "Read the weights into memory instead of mapping the file");
  chat->add_option("--lock-timeout", *lock_timeout,
                   "How long to wait for a checkpoint that is being committed")
      ->check(check_duration)
      ->capture_default_str();
  chat->add_flag("--verbose", options->verbose, "Times and rates");
  chat->callback([&action, options, lock_timeout, no_mmap, opener = std::move(opener)] {
    options->open.map = !*no_mmap;
    options->open.lock_limit = *parse_duration(*lock_timeout);
    action = [options, opener] {
      prepare_engine_environment();
      return run_chat(*options, opener, g_started);
    };
  });
}

void add_chat_command(CLI::App& app, Action& action) { add_chat_command(app, action, open_model); }

}  // namespace bitctl
