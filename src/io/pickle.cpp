#include "io/pickle.hpp"

#include <bit>
#include <unordered_map>

#include "core/format_text.hpp"
#include "io/open_container.hpp"

namespace steer::io::detail {
namespace {

// Opcodes of protocol 2 (CPython, Lib/pickle.py).
enum Opcode : std::uint8_t {
  kProto = 0x80,
  kGlobal = 'c',
  kMark = '(',
  kBinUnicode = 'X',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kLong1 = 0x8a,
  kBinFloat = 'G',
  kTuple = 't',
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kEmptyTuple = ')',
  kEmptyList = ']',
  kEmptyDict = '}',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kReduce = 'R',
  kBuild = 'b',
  kBinPersId = 'Q',
  kSetItem = 's',
  kSetItems = 'u',
  kAppend = 'a',
  kAppends = 'e',
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kNone = 'N',
  kStop = '.',
};

struct StorageType {
  std::string_view name;
  at::ScalarType dtype;
};
constexpr StorageType kStorageTypes[] = {
    {"DoubleStorage", at::ScalarType::Double},
    {"FloatStorage", at::ScalarType::Float},
    {"HalfStorage", at::ScalarType::Half},
    {"BFloat16Storage", at::ScalarType::BFloat16},
    {"LongStorage", at::ScalarType::Long},
    {"IntStorage", at::ScalarType::Int},
    {"ShortStorage", at::ScalarType::Short},
    {"CharStorage", at::ScalarType::Char},
    {"ByteStorage", at::ScalarType::Byte},
    {"BoolStorage", at::ScalarType::Bool},
    {"ComplexFloatStorage", at::ScalarType::ComplexFloat},
    {"ComplexDoubleStorage", at::ScalarType::ComplexDouble},
};

/// Settings beside the weights of a checkpoint name types; they are read as texts.
constexpr std::string_view kDtypeNames[] = {"float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
                                            "int64",   "int32",   "int16",   "int8",     "uint8",         "bool"};

class Unpickler {
 public:
  Unpickler(Bytes bytes, MemoryBudget& budget, const std::string& file)
      : cursor_(bytes, kOpenTensors, "the pickle of " + file), budget_(budget), file_(file) {}

  PickleDocument run(std::size_t* used) {
    while (step(cursor_.read<std::uint8_t>())) {
    }
    if (stack_.size() != 1 || !marks_.empty() || (!used && cursor_.left() != 0)) malformed("more than one value");
    if (used) *used = cursor_.position();
    document_.root = stack_[0];
    return std::move(document_);
  }

 private:
  [[noreturn]] void malformed(std::string_view got) const {
    fail(ErrorCode::format, kOpenTensors, "expected the pickle of tensors in containers but got {} at byte {} ({})",
         got, cursor_.position(), file_);
  }

  // --- the stack ---------------------------------------------------------------------------------------------------
  void push(PickleValue value) {
    budget_.charge(sizeof value);
    stack_.push_back(value);
  }
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  PickleValue pop() {
    if (stack_.size() <= floor()) malformed("an empty stack");
    const auto value = stack_.back();
    stack_.pop_back();
    return value;
  }
  PickleValue& top() {
    if (stack_.size() <= floor()) malformed("an empty stack");
    return stack_.back();
  }
  std::vector<PickleValue> pop_to_mark() {
    if (marks_.empty()) malformed("no mark");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<PickleValue> values(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return values;
  }
  std::vector<PickleValue> pop_many(std::size_t count) {
    if (stack_.size() - floor() < count) malformed("an empty stack");
    const auto begin = stack_.end() - static_cast<std::ptrdiff_t>(count);
    std::vector<PickleValue> values(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    return values;
  }

  // --- values ------------------------------------------------------------------------------------------------------
  template <class T>
  PickleValue store(PickleKind kind, std::deque<T>& pool, T&& object, std::size_t bytes) {
    budget_.charge(sizeof(T) + bytes);
    pool.push_back(std::move(object));
    PickleValue value;
    value.kind = kind;
    value.index = static_cast<std::uint32_t>(pool.size() - 1);
    return value;
  }
  PickleValue sequence(PickleKind kind, std::vector<PickleValue> values) {
    const auto bytes = values.capacity() * sizeof(PickleValue);
    return store(kind, document_.sequences, std::move(values), bytes);
  }
  PickleValue dict() { return store(PickleKind::dict, document_.dicts, {}, 0); }
  PickleValue text(std::string_view characters) {
    return store(PickleKind::text, document_.texts, std::string(characters), characters.size());
  }
  static PickleValue integer(std::int64_t number, PickleKind kind = PickleKind::integer) {
    PickleValue value;
    value.kind = kind;
    value.integer = number;
    return value;
  }

  void expect_kind(const PickleValue& value, PickleKind kind, std::string_view what) const {
    if (value.kind != kind) malformed(format_text("another kind of value where {} belongs", what));
  }
  const std::vector<PickleValue>& tuple_of(const PickleValue& value, std::string_view what) const {
    expect_kind(value, PickleKind::tuple, what);
    return document_.sequences[value.index];
  }
  std::vector<std::int64_t> integers_of(const PickleValue& value, std::string_view what) const {
    const auto& values = tuple_of(value, what);
    if (values.size() > kMaxDimensions) malformed("a tensor of too many dimensions");
    std::vector<std::int64_t> numbers;
    for (const auto& item : values) {
      expect_kind(item, PickleKind::integer, what);
      numbers.push_back(item.integer);
    }
    return numbers;
  }

  std::string_view line() {
    const auto rest = cursor_;
    std::size_t length = 0;
    for (auto probe = rest; probe.read<char>() != '\n';) ++length;
    const auto characters = as_text(cursor_.take(length));
    cursor_.take(1);
    return characters;
  }

  PickleValue global() {
    const auto module = line(), name = line();
    auto made = [](PickleGlobal which, std::int64_t detail = 0) {
      auto value = integer(detail, PickleKind::global);
      value.index = static_cast<std::uint32_t>(which);
      return value;
    };
    if (module == "torch._utils" && name == "_rebuild_tensor_v2") return made(PickleGlobal::rebuild_tensor);
    if (module == "torch._utils" && name == "_rebuild_parameter") return made(PickleGlobal::rebuild_parameter);
    if (module == "collections" && name == "OrderedDict") return made(PickleGlobal::ordered_dict);
    if (module == "torch" && name == "Size") return made(PickleGlobal::size);
    if (module == "torch" && name == "device") return made(PickleGlobal::device);
    if (module == "torch")
      for (const std::string_view dtype : kDtypeNames)
        if (name == dtype) return text(format_text("torch.{}", dtype));
    if (module == "torch")
      for (const auto& type : kStorageTypes)
        if (type.name == name) return made(PickleGlobal::storage_type, static_cast<std::int64_t>(type.dtype));
    fail(ErrorCode::unsupported, kOpenTensors,
         "expected only tensors, numbers, strings and containers but got the Python object {}.{} ({}); steer runs no "
         "code "
         "from a file: save its state_dict, or use safetensors",
         quote(module), quote(name), file_);
  }

  PickleValue storage(const PickleValue& id) {
    const auto& parts = tuple_of(id, "a storage's id");
    // Files from before zip archives add a sixth part, for a storage that is a part of another: None in all but the
    // oldest.
    if (parts.size() != 5 && (parts.size() != 6 || parts[5].kind != PickleKind::none))
      malformed("a storage's id of another form");
    expect_kind(parts[0], PickleKind::text, "\"storage\"");
    expect_kind(parts[1], PickleKind::global, "a storage type");
    expect_kind(parts[2], PickleKind::text, "a storage's key");
    expect_kind(parts[4], PickleKind::integer, "a storage's size");
    if (document_.texts[parts[0].index] != "storage" ||
        static_cast<PickleGlobal>(parts[1].index) != PickleGlobal::storage_type || parts[4].integer < 0)
      malformed("a reference that is no storage");
    const auto& key = document_.texts[parts[2].index];
    return store(PickleKind::storage, document_.storages,
                 PickleStorage{static_cast<at::ScalarType>(parts[1].integer), key, parts[4].integer}, key.size());
  }

  PickleValue reduce(const PickleValue& callable, const PickleValue& packed) {
    expect_kind(callable, PickleKind::global, "a function");
    const auto& arguments = tuple_of(packed, "arguments");
    switch (static_cast<PickleGlobal>(callable.index)) {
      case PickleGlobal::ordered_dict:
        if (!arguments.empty()) malformed("an OrderedDict with arguments");
        return dict();
      case PickleGlobal::rebuild_parameter:
        if (arguments.size() != 3) malformed("a parameter with other arguments");
        expect_kind(arguments[0], PickleKind::tensor, "a parameter's tensor");
        return arguments[0];
      case PickleGlobal::rebuild_tensor: {
        // (storage, offset, sizes, strides, requires_grad, hooks[, metadata]); the last three do not matter here.
        if (arguments.size() != 6 && arguments.size() != 7) malformed("a tensor with other arguments");
        expect_kind(arguments[0], PickleKind::storage, "a storage");
        expect_kind(arguments[1], PickleKind::integer, "an offset");
        PickleTensor tensor{arguments[0].index, arguments[1].integer, integers_of(arguments[2], "sizes"),
                            integers_of(arguments[3], "strides")};
        if (tensor.sizes.size() != tensor.strides.size()) malformed("as many strides as sizes missing");
        const auto bytes = 2 * sizeof(std::int64_t) * kMaxDimensions;
        return store(PickleKind::tensor, document_.tensors, std::move(tensor), bytes);
      }
      case PickleGlobal::size:
        if (arguments.size() != 1) malformed("a torch.Size with other arguments");
        expect_kind(arguments[0], PickleKind::tuple, "a torch.Size's values");
        return arguments[0];
      case PickleGlobal::device: {
        if (arguments.empty()) malformed("a torch.device without arguments");
        expect_kind(arguments[0], PickleKind::text, "a torch.device's name");
        return arguments[0];
      }
      case PickleGlobal::storage_type:
        break;
    }
    malformed("a call of something that is no function");
  }

  void put_items(const PickleValue& target, const std::vector<PickleValue>& items) {
    expect_kind(target, PickleKind::dict, "a dict");
    if (items.size() % 2 != 0) malformed("a key without a value");
    auto& entries = document_.dicts[target.index];
    budget_.charge(items.size() * sizeof(PickleValue));
    for (std::size_t i = 0; i < items.size(); i += 2) entries.emplace_back(items[i], items[i + 1]);
  }
  void append(const PickleValue& target, const std::vector<PickleValue>& items) {
    expect_kind(target, PickleKind::list, "a list");
    auto& values = document_.sequences[target.index];
    budget_.charge(items.size() * sizeof(PickleValue));
    values.insert(values.end(), items.begin(), items.end());
  }

  void remember(std::uint32_t place) {
    budget_.charge(64);
    memo_[place] = top();
  }
  void recall(std::uint32_t place) {
    const auto found = memo_.find(place);
    if (found == memo_.end()) malformed("a reference to a value that was not stored");
    push(found->second);
  }

  PickleValue long_integer() {
    const auto bytes = cursor_.take(cursor_.read<std::uint8_t>());
    if (bytes.size() > 8) malformed("an integer beyond 64 bits");
    const bool negative = !bytes.empty() && (bytes.back() & std::byte{0x80}) != std::byte{0};
    std::int64_t number = negative ? -1 : 0;
    if (!bytes.empty()) std::memcpy(&number, bytes.data(), bytes.size());
    return integer(number);
  }
  PickleValue real() {
    PickleValue value;
    value.kind = PickleKind::real;
    value.real = std::bit_cast<double>(__builtin_bswap64(cursor_.read<std::uint64_t>()));  // big-endian
    return value;
  }

  bool step(std::uint8_t opcode) {
    switch (opcode) {
      case kProto:
        if (const auto version = cursor_.read<std::uint8_t>(); version != 2)
          fail(ErrorCode::unsupported, kOpenTensors,
               "expected pickle protocol 2, torch.save's default, but got {} ({})", version, file_);
        break;
      case kMark:
        budget_.charge(sizeof(std::size_t));
        marks_.push_back(stack_.size());
        break;
      case kGlobal:
        push(global());
        break;
      case kBinUnicode:
        push(text(as_text(cursor_.take(cursor_.read<std::uint32_t>()))));
        break;
      case kBinInt:
        push(integer(cursor_.read<std::int32_t>()));
        break;
      case kBinInt1:
        push(integer(cursor_.read<std::uint8_t>()));
        break;
      case kBinInt2:
        push(integer(cursor_.read<std::uint16_t>()));
        break;
      case kLong1:
        push(long_integer());
        break;
      case kBinFloat:
        push(real());
        break;
      case kNewTrue:
        push(integer(1, PickleKind::boolean));
        break;
      case kNewFalse:
        push(integer(0, PickleKind::boolean));
        break;
      case kNone:
        push({});
        break;
      case kTuple:
        push(sequence(PickleKind::tuple, pop_to_mark()));
        break;
      case kTuple1:
        push(sequence(PickleKind::tuple, pop_many(1)));
        break;
      case kTuple2:
        push(sequence(PickleKind::tuple, pop_many(2)));
        break;
      case kTuple3:
        push(sequence(PickleKind::tuple, pop_many(3)));
        break;
      case kEmptyTuple:
        push(sequence(PickleKind::tuple, {}));
        break;
      case kEmptyList:
        push(sequence(PickleKind::list, {}));
        break;
      case kEmptyDict:
        push(dict());
        break;
      case kBinPut:
        remember(cursor_.read<std::uint8_t>());
        break;
      case kLongBinPut:
        remember(cursor_.read<std::uint32_t>());
        break;
      case kBinGet:
        recall(cursor_.read<std::uint8_t>());
        break;
      case kLongBinGet:
        recall(cursor_.read<std::uint32_t>());
        break;
      case kReduce: {
        const auto arguments = pop();
        const auto callable = pop();
        push(reduce(callable, arguments));
        break;
      }
      case kBuild:  // the attributes of a state dict (`_metadata`): module versions, no data
        pop();
        expect_kind(top(), PickleKind::dict, "an OrderedDict");
        break;
      case kBinPersId:
        push(storage(pop()));
        break;
      case kSetItem: {
        const auto item = pop_many(2);
        put_items(top(), item);
        break;
      }
      case kSetItems: {
        const auto items = pop_to_mark();
        put_items(top(), items);
        break;
      }
      case kAppend: {
        const auto item = pop_many(1);
        append(top(), item);
        break;
      }
      case kAppends: {
        const auto items = pop_to_mark();
        append(top(), items);
        break;
      }
      case kStop:
        return false;
      default:
        fail(ErrorCode::unsupported, kOpenTensors,
             "expected the pickle opcodes that torch.save writes for tensors but got {:#04x} at byte {} ({}); use "
             "safetensors",
             opcode, cursor_.position() - 1, file_);
    }
    return true;
  }

  ByteCursor cursor_;
  MemoryBudget& budget_;
  const std::string& file_;
  PickleDocument document_;
  std::vector<PickleValue> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint32_t, PickleValue> memo_;
};

}  // namespace

PickleDocument unpickle(Bytes bytes, MemoryBudget& budget, const std::string& file, std::size_t* used) {
  return Unpickler(bytes, budget, file).run(used);
}

}  // namespace steer::io::detail
