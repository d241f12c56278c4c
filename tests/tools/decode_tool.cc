// A model folder under a decoder, token ids in and out, for tests that compare it with transformers.
//
//   decode_tool [--native] [--kv float32|bf16|int8] [--engine FILE] [--threads N] [--max-context N]
//               [--device NAME] [--no-mmap] FOLDER
//
// First one line about the model. Then per line of input one line of output:
//   {"ids": [1, 2, 3], "position": 0, "new": 64, "stop": [2], "temperature": 0, "top_k": 0, "top_p": 1,
//   "seed": 0,
//    "logits": false}
//   {"ids": [the new ones], "prefill_s": 0.01, "decode_s": 0.5, "logits": [those after the last id given]}
// Every field but "ids" may be left out. What cannot be done is {"error": "…"}.
#include <chrono>
#include <cstdio>
#include <iostream>

#include "base/install_layout.h"
#include "base/read_file.h"
#include "base/strict_json.h"
#include "decode/native_decoder.h"
#include "decode/sampler.h"
#include "decode/torch_decoder.h"
#include "engine_api/engine_loader.h"

namespace {

using namespace bitctl;

double seconds_since(Mono start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Arguments {
  std::string engine =
      install_layout().folder + "/../libbitctl_engine.so";  // this program lies in build/tests
  std::string model;
  bool map = true;
  bool native = false;
  std::optional<KvType> kv;
  TorchDecoderOptions decoder;
};

bool parse(int argc, char** argv, Arguments& to) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (!name.starts_with("--")) {
      to.model = name;
    } else if (name == "--no-mmap") {
      to.map = false;
    } else if (name == "--native") {
      to.native = true;
    } else if (++i == argc) {
      return false;
    } else if (name == "--kv") {
      to.kv = kv_type(argv[i]);
      if (!to.kv) return false;
    } else if (name == "--engine") {
      to.engine = argv[i];
    } else if (name == "--threads") {
      to.decoder.threads = std::atoi(argv[i]);
    } else if (name == "--max-context") {
      to.decoder.max_context = std::atol(argv[i]);
    } else if (name == "--device") {
      to.decoder.device = argv[i];
    } else {
      return false;
    }
  }
  return !to.model.empty();
}

Result<std::unique_ptr<Decoder>> open_decoder(const Arguments& arguments, const std::string& config,
                                              ModelWeights weights, Json& about) {
  if (arguments.native) {
    auto parsed = parse_model_config(config);
    if (!parsed) return forward(std::move(parsed));
    return open_native_decoder(std::move(*parsed), std::move(weights),
                               {arguments.decoder.threads, arguments.decoder.max_context, arguments.kv});
  }
  const Mono start = std::chrono::steady_clock::now();
  const auto engine = load_engine(arguments.engine);
  if (!engine) return tl::unexpected(engine.error());
  about["torch"] = (*engine)->torch_version;
  about["engine_s"] = seconds_since(start);
  return open_torch_decoder(*engine, config, std::move(weights), arguments.decoder);
}

Result<std::unique_ptr<Decoder>> open(const Arguments& arguments, Json& about) {
  const Mono loaded = std::chrono::steady_clock::now();
  const auto config = read_small_file(arguments.model + "/config.json", 1 << 20, Links::follow);
  if (!config) return tl::unexpected(config.error());
  const std::string path = arguments.model + "/model.safetensors";
  const auto weights = TensorFile::open(path, {.map = arguments.map, .lock_path = run_lock_of(path)});
  if (!weights) return tl::unexpected(weights.error());
  about["mapped"] = (*weights)->mapped();
  auto decoder = open_decoder(arguments, *config, {*weights}, about);
  if (!decoder) return decoder;
  about["model_s"] = seconds_since(loaded);
  about["dtype"] = (*decoder)->info().dtype;
  about["vocab_size"] = (*decoder)->info().vocab_size;
  about["max_context"] = (*decoder)->info().max_context;
  return decoder;
}

Result<Json> answer(Decoder& decoder, const Json& request) {
  const auto ids = request.at("ids").get<std::vector<int32_t>>();
  const auto stop = request.value("stop", std::vector<int32_t>{});
  const SamplerOptions sampler{request.value("temperature", 0.0), request.value("top_k", int64_t{0}),
                               request.value("top_p", 1.0), request.value("seed", uint64_t{0})};
  size_t position = request.value("position", size_t{0});
  std::vector<float> logits(static_cast<size_t>(decoder.info().vocab_size));
  Json reply{{"ids", Json::array()}};

  const Mono start = std::chrono::steady_clock::now();
  if (auto ran = decoder.forward(ids, position, logits); !ran) return forward(std::move(ran));
  reply["prefill_s"] = seconds_since(start);
  if (request.value("logits", false)) reply["logits"] = logits;
  position += ids.size();

  const Mono prefilled = std::chrono::steady_clock::now();
  for (int left = request.value("new", 0); left > 0; --left, ++position) {
    const auto next = sample(logits, sampler, position);
    if (!next) return tl::unexpected(next.error());
    reply["ids"].push_back(*next);
    if (left == 1 || std::find(stop.begin(), stop.end(), *next) != stop.end()) break;
    if (auto ran = decoder.forward({&*next, 1}, position, logits); !ran) return forward(std::move(ran));
  }
  reply["decode_s"] = seconds_since(prefilled);
  return reply;
}

std::string reply_to(Decoder& decoder, const std::string& line) {
  try {
    const auto reply = answer(decoder, Json::parse(line));
    return dump_line(reply ? *reply : Json{{"error", reply.error().message}});
  } catch (const nlohmann::json::exception& error) {
    return dump_line(Json{{"error", error.what()}});
  }
}

}  // namespace

int main(int argc, char** argv) {
  prepare_engine_environment();
  Arguments arguments;
  if (!parse(argc, argv, arguments)) {
    std::fputs(
        "usage: decode_tool [--native] [--kv float32|bf16|int8] [--engine FILE] [--threads N] "
        "[--max-context N] [--device NAME] [--no-mmap] FOLDER\n",
        stderr);
    return 2;
  }
  Json about;
  const auto decoder = open(arguments, about);
  if (!decoder) {
    std::fprintf(stderr, "%s\n", decoder.error().message.c_str());
    return 1;
  }
  std::cout << dump_line(about) << std::endl;
  for (std::string line; std::getline(std::cin, line);) std::cout << reply_to(**decoder, line) << std::endl;
  return 0;
}
