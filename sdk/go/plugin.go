package hostler

import (
	"hostler/internal/contract"
	"hostler/internal/host"
	"strconv"
	"strings"
	"time"
)

// Assets are the read-only files that the manifest lists under [plugins.<name>.assets].
var Assets AssetFiles

// AssetFiles is the type of [Assets].
type AssetFiles struct{}

// Names returns the names of all assets.
func (AssetFiles) Names() []string {
	return host.AssetsNames()
}

// Size returns the size of an asset in bytes.
func (AssetFiles) Size(name string) (int, error) {
	size, err := host.AssetsSize(name)
	if err != nil {
		return 0, assetFault(name, err)
	}
	return int(size), nil
}

// Read returns the content of an asset. The error is Failed: a missing asset is the operator's fault.
func (AssetFiles) Read(name string) ([]byte, error) {
	size, err := Assets.Size(name)
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	count, err := Assets.ReadAt(name, data, 0)
	return data[:count], err
}

// ReadAt copies bytes of an asset from an offset into data, and returns how many there were.
func (AssetFiles) ReadAt(name string, data []byte, offset int) (int, error) {
	if offset < 0 {
		panic(misuse("Assets.ReadAt: the offset is negative"))
	}
	count, err := host.AssetsRead(name, uint64(offset), data)
	if err != nil {
		return 0, assetFault(name, err)
	}
	return count, nil
}

func assetFault(name string, err *Error) *Error {
	return NewError(Failed, "asset \""+name+"\": "+err.Message)
}

// Config has the texts that the manifest sets under [plugins.<name>.config].
var Config ConfigValues

// ConfigValues is the type of [Config].
type ConfigValues struct{}

// Get returns the value of a key, and whether there is one.
func (ConfigValues) Get(key string) (string, bool, error) {
	value, known, err := host.ConfigGet(key)
	if err != nil {
		return "", false, err
	}
	return value, known, nil
}

// Int returns the number that a key has, or value if the manifest does not set it. Text that is no
// whole number from low to high is the operator's fault, so the error is Failed.
func (ConfigValues) Int(key string, value, low, high int64) (int64, error) {
	text, known, err := Config.Get(key)
	if err != nil || !known {
		return value, err
	}
	number, fault := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if fault != nil || number < low || number > high {
		return 0, wrongConfig(key, text, "a whole number from "+strconv.FormatInt(low, 10)+" to "+strconv.FormatInt(high, 10))
	}
	return number, nil
}

// Float is like Int for any number.
func (ConfigValues) Float(key string, value, low, high float64) (float64, error) {
	text, known, err := Config.Get(key)
	if err != nil || !known {
		return value, err
	}
	number, fault := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if fault != nil || !(number >= low && number <= high) {
		return 0, wrongConfig(key, text, "a number from "+strconv.FormatFloat(low, 'g', -1, 64)+" to "+strconv.FormatFloat(high, 'g', -1, 64))
	}
	return number, nil
}

func wrongConfig(key, text, expected string) *Error {
	return NewError(Failed, "config \""+key+"\": expected "+expected+", got \""+text+"\"")
}

// Log writes to the log of the host, at most log_kb for each call.
var Log Logger

// Logger is the type of [Log].
type Logger struct{}

// Trace writes a line at the level TRACE.
func (Logger) Trace(message string) { host.Log(contract.Trace, message) }

// Debug writes a line at the level DEBUG.
func (Logger) Debug(message string) { host.Log(contract.Debug, message) }

// Info writes a line at the level INFO.
func (Logger) Info(message string) { host.Log(contract.Info, message) }

// Warn writes a line at the level WARN.
func (Logger) Warn(message string) { host.Log(contract.Warn, message) }

// Error writes a line at the level ERROR.
func (Logger) Error(message string) { host.Log(contract.LevelError, message) }

// Forever is a time to live of an entry that does not expire. Any other negative one is like 0.
const Forever time.Duration = -1

// State is data that a plugin keeps across requests, instances, traps and swaps of its file, in the
// memory of the host.
var State StateStore

// StateStore is the type of [State].
type StateStore struct{}

// Get returns the bytes under a key, and whether there are any.
func (StateStore) Get(key string) ([]byte, bool) {
	return host.StateGet(key)
}

// Set sets a key of at most 1024 bytes. The entry expires after ttl, in milliseconds, or never if it
// is Forever. The least recently used entries are evicted if space is needed. The error is TooLarge
// if the entry exceeds state_kb.
func (StateStore) Set(key string, value []byte, ttl time.Duration) error {
	return errorOrNil(host.StateSet(key, value, ttlMilliseconds(ttl)))
}

// GetTensors returns the tensors under a key, and whether there are any. Nothing is copied.
func (StateStore) GetTensors(key string) ([]*Tensor, bool) {
	handles, known := host.StateGetTensors(key)
	if !known {
		return nil, false
	}
	return newTensors(handles), true
}

// SetTensors is like Set for tensors, which remain the plugin's. Nothing is copied.
func (StateStore) SetTensors(key string, tensors []*Tensor, ttl time.Duration) error {
	return errorOrNil(host.StateSetTensors(key, lent(tensors, "State.SetTensors"), ttlMilliseconds(ttl)))
}

// Delete removes a key, and returns whether it existed.
func (StateStore) Delete(key string) bool {
	return host.StateDelete(key)
}

// Add adds to a counter and returns its new value, which saturates. Counters begin at 0 and are never
// evicted. The 1,001st counter ends the instance.
func (StateStore) Add(counter string, delta int64) int64 {
	return host.StateAdd(counter, delta)
}

// Read returns the value of a counter.
func (StateStore) Read(counter string) int64 {
	return host.StateAdd(counter, 0)
}

// CompareAndSwap sets a counter if its value is expected. It returns the value of the counter
// afterwards, and whether it was set.
func (StateStore) CompareAndSwap(counter string, expected, value int64) (int64, bool) {
	return host.StateCompareExchange(counter, expected, value)
}

// Update changes a counter atomically. change may be called several times. It returns the new value,
// and false if no change is to be made.
func (StateStore) Update(counter string, change func(int64) (int64, bool)) (int64, bool) {
	value := State.Read(counter)
	for {
		updated, isChange := change(value)
		if !isChange {
			return value, false
		}
		now, isSet := State.CompareAndSwap(counter, value, updated)
		if isSet {
			return updated, true
		}
		value = now
	}
}

func ttlMilliseconds(ttl time.Duration) int64 {
	if ttl == Forever {
		return host.NoTimeout
	}
	return max(0, ttl.Milliseconds())
}

// errorOrNil avoids an error that is not nil because it has a type.
func errorOrNil(err *Error) error {
	if err == nil {
		return nil
	}
	return err
}
