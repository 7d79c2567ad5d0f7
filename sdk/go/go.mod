module hostler

go 1.24
