// What the two runners share: the command line, files, timing and the JSON line. Each runtime supplies one `Session`.
//
//   RUNNER MODEL --input IN.bin --output OUT.bin [--warmup W] [--runs N] [--threads T] [--seconds S]
//
// IN.bin and OUT.bin are raw little-endian float32 in the model's own order. One inference is cold and timed as `first_ms`;
// W more warm up; then N are timed, and with --seconds as many more as fit until S seconds of them have passed.
// One line of JSON on stdout: {"runtime", "load_ms", "first_ms", "ms": [...]}, milliseconds. On an error: one line on stderr,
// exit code 2, and no output file. What the runtimes log on stderr is shown with ZOO_RUNNER_LOG=1 in the environment.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace zoo {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Arguments {
  std::string model, input, output;
  long warmup = 5, runs = 30, threads = 1;
  double seconds = 0;
};

inline double number(const std::string& name, const std::string& text, double least) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= least) || value > 1e6) {
    throw Error(name + " takes a number of at least " + std::to_string(static_cast<long>(least)) + ", not '" + text + "'");
  }
  return value;
}

inline Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name.rfind("--", 0) != 0) {
      if (!a.model.empty()) throw Error("one model at a time, not also '" + name + "'");
      a.model = name;
      continue;
    }
    if (i + 1 == argc) throw Error(name + " needs a value");
    const std::string value = argv[++i];
    if (name == "--input") a.input = value;
    else if (name == "--output") a.output = value;
    else if (name == "--warmup") a.warmup = static_cast<long>(number(name, value, 0));
    else if (name == "--runs") a.runs = static_cast<long>(number(name, value, 0));
    else if (name == "--threads") a.threads = static_cast<long>(number(name, value, 1));
    else if (name == "--seconds") a.seconds = number(name, value, 0);
    else throw Error("unknown option " + name);
  }
  if (a.model.empty() || a.input.empty() || a.output.empty()) {
    throw Error("usage: MODEL --input IN.bin --output OUT.bin [--warmup W] [--runs N] [--threads T] [--seconds S]");
  }
  return a;
}

inline std::vector<float> read_floats(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw Error(path + ": cannot be read");
  const std::streamoff size = file.tellg();
  if (size <= 0 || size % 4 != 0) throw Error(path + ": holds " + std::to_string(size) + " bytes, which are no float32 values");
  std::vector<float> values(static_cast<size_t>(size) / 4);
  file.seekg(0);
  if (!file.read(reinterpret_cast<char*>(values.data()), size)) throw Error(path + ": cannot be read");
  return values;
}

// Through a temporary name: a full disk or a kill leaves no half-written output.
inline void write_floats(const std::string& path, const std::vector<float>& values) {
  const std::string temporary = path + ".part";
  std::ofstream file(temporary, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * 4));
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    throw Error(path + ": cannot be written");
  }
}

// Keeps stderr to one line: while it lives, descriptor 2 leads nowhere (both runtimes log a dozen lines of start-up there).
class Quiet {
 public:
  Quiet() : saved_(std::getenv("ZOO_RUNNER_LOG") ? -1 : dup(2)) {
    const int nowhere = saved_ < 0 ? -1 : open("/dev/null", O_WRONLY);
    if (nowhere < 0) return;
    dup2(nowhere, 2);
    close(nowhere);
  }
  ~Quiet() {
    if (saved_ < 0) return;
    dup2(saved_, 2);
    close(saved_);
  }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  int saved_;
};

// A no-op that the instruction counter (tools/arm/count_plugin.c) sees go by: an unallocated hint, which every CPU skips.
inline void mark() {
#if defined(__aarch64__)
  __asm__ volatile("hint #0x7f" ::: "memory");
#endif
}

using Clock = std::chrono::steady_clock;

inline double ms_since(Clock::time_point begun) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begun).count();
}

// `Session` is a runtime with a loaded model: Session(model, threads); set_input(values); run(); output().
template <typename Session>
int run_main(const char* runtime, int argc, char** argv) {
  try {
    const Arguments a = parse(argc, argv);
    const std::vector<float> input = read_floats(a.input);
    if (!std::ifstream(a.model)) throw Error(a.model + ": cannot be read");

    const Quiet quiet;
    const auto begun = Clock::now();
    Session session(a.model, static_cast<int>(a.threads));
    const double load_ms = ms_since(begun);
    session.set_input(input);

    const auto timed_run = [&session] {
      const auto start = Clock::now();
      mark();
      session.run();
      mark();
      return ms_since(start);
    };
    const double first_ms = timed_run();
    for (long i = 0; i < a.warmup; ++i) timed_run();
    std::vector<double> ms;
    const auto start = Clock::now();
    while (static_cast<long>(ms.size()) < a.runs || ms_since(start) < a.seconds * 1e3) ms.push_back(timed_run());
    write_floats(a.output, session.output());

    std::printf("{\"runtime\": \"%s\", \"load_ms\": %.4f, \"first_ms\": %.4f, \"ms\": [", runtime, load_ms, first_ms);
    for (size_t i = 0; i < ms.size(); ++i) std::printf("%s%.4f", i ? ", " : "", ms[i]);
    std::printf("]}\n");
    return std::fflush(stdout) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "zoo-runner-%s: %s\n", runtime, error.what());
    return 2;
  }
}

}  // namespace zoo
